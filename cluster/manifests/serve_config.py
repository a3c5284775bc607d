"""Kind `serve-config`: the endpoint of the spec's model for `serve deploy`, in Ray Serve's own format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.manifests.documents import Rendered, parse_yaml
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.secret_check import find_secrets
from serve.deploy_config import build_deploy_config
from serve.model.settings import STREAMING
from trainer.spec.serve import ServeSpec
from trainer.tasks.catalog import get_task

CONFIG_FILE = "serve.yaml"


def render(inputs: ManifestInputs) -> Rendered:
    """Return the config of the model's endpoint. It serves the version to which the alias points."""
    streams = may_stream(inputs)
    return {CONFIG_FILE: [build_deploy_config(inputs.spec.name, inputs.storage, remote_serve(inputs), streams=streams)]}


def may_stream(inputs: ManifestInputs) -> bool:
    """Return whether the endpoint's answers may be streams."""
    return get_task(inputs.spec.task).service in STREAMING


def remote_serve(inputs: ManifestInputs) -> ServeSpec:
    """Return the spec's section `serve:` with the cluster's paths."""
    return ServeSpec.model_validate(next(parse_yaml(inputs.spec_text)).get("serve") or {})


def check(files: Mapping[str, str]) -> list[str]:
    """Return what Ray Serve's schema and the application's arguments refuse."""
    configs = parse_yaml(files.get(CONFIG_FILE, ""))
    return [f"{CONFIG_FILE}: {problem}" for config in configs for problem in check_config(config)] + find_secrets(files)


def check_config(config: Any) -> list[str]:
    """Return what Ray Serve's schema and the application's arguments refuse in one config."""
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    from serve.app import BuildArguments

    problems = []
    try:
        for application in ServeDeploySchema.model_validate(config).applications:
            if application.import_path != "raymill.deploy:build":
                problems.append(f"import_path={application.import_path}: it is raymill.deploy:build")
                continue
            ServeSpec.model_validate(BuildArguments.model_validate(application.args).serve)
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return problems
