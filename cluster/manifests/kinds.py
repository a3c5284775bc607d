"""The kinds of manifests. A new kind is a module with a function `render`, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cluster.errors import SpecError, suggest
from cluster.manifests import (
    airflow,
    airflow_check,
    compose,
    compose_check,
    kubernetes_check,
    kubernetes_storage,
    ray_up,
    ray_up_check,
    raycluster,
    raycronjob,
    rayjob,
    rayservice,
    serve_config,
    slurm,
    slurm_check,
)
from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs


def _no_problems(files: Mapping[str, str]) -> list[str]:
    return []


class ManifestKind(NamedTuple):
    """One kind of manifest."""

    description: str
    """What the files are, in a few words, for `raymill manifest --help`."""
    render: Callable[[ManifestInputs], Rendered]
    """Returns the files: name -> text, or YAML documents."""
    check: Callable[[Mapping[str, str]], list[str]] = _no_problems
    """Returns what is wrong with the files (name -> text), one sentence each: file, key, value and rule."""


#: Name -> kind, in the order of the help.
KINDS: dict[str, ManifestKind] = {
    "ray-up": ManifestKind(
        "machines of AWS, GCP or Azure that Ray starts and stops, or hosts by ssh", ray_up.render, ray_up_check.check
    ),
    "raycluster": ManifestKind(
        "a standing Ray cluster on Kubernetes, by KubeRay", raycluster.render, kubernetes_check.check
    ),
    "kubernetes-storage": ManifestKind(
        "the volume that the kinds on Kubernetes share", kubernetes_storage.render, kubernetes_check.check
    ),
    "rayjob": ManifestKind("one run on a Kubernetes cluster, by KubeRay", rayjob.render, kubernetes_check.check),
    "rayservice": ManifestKind("the endpoint on Kubernetes, by KubeRay", rayservice.render, kubernetes_check.check),
    "raycronjob": ManifestKind(
        "the nightly pipeline on Kubernetes, by KubeRay", raycronjob.render, kubernetes_check.check
    ),
    "airflow": ManifestKind("the nightly pipeline as a DAG of Airflow 3", airflow.render, airflow_check.check),
    "compose": ManifestKind("containers on hosts of your own, by Docker Compose", compose.render, compose_check.check),
    "slurm": ManifestKind("a batch job of a Slurm cluster", slurm.render, slurm_check.check),
    "serve-config": ManifestKind("the endpoint for `serve deploy`", serve_config.render, serve_config.check),
}


def get_kind(name: str) -> ManifestKind:
    """Return a kind by its name. Raises `SpecError` if there is none."""
    if name not in KINDS:
        raise SpecError(f"{name!r} is no kind of manifest", suggest(name, KINDS))
    return KINDS[name]
