"""Roll a registered version out to an endpoint that a cluster's Ray Serve runs, and back if it does not start."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cluster.deadline import call_within
from cluster.errors import ModelError, ResourceError, first_line
from cluster.jobs.address import JobsAddress
from trainer.registry.registry import Version

_IMPORT_PATH = "raymill.deploy:build"
_ANSWER_WITHIN_S, _LOOK_EVERY_S = 20.0, 1.0
_RUNNING, _FAILED = "RUNNING", ("DEPLOY_FAILED", "UNHEALTHY")

T = TypeVar("T")


class ServeClient:
    """Reads and changes what a cluster's Ray Serve runs. Each method raises `ResourceError`."""

    def __init__(self, address: JobsAddress) -> None:
        """Connect to the dashboard. Raises `ResourceError` if nothing answers there, or if the token is refused."""
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        self.address = address
        address.check()
        self._client = self._ask(lambda: ServeSubmissionClient(address.url))

    def applications(self) -> dict[str, dict[str, Any]]:
        """Return the details of all applications by name."""
        details: dict[str, Any] = self._ask(self._client.get_serve_details)
        return dict(details.get("applications") or {})

    def deploy(self, configs: list[dict[str, Any]]) -> None:
        """Make these the applications that run. An application that is left out is removed."""
        self._ask(lambda: self._client.deploy_applications({"applications": configs}))

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return call_within(question, _ANSWER_WITHIN_S)
        except Exception as error:  # of requests, of Ray, of a time limit: many classes
            raise self.address.no_answer(error) from error


def roll_out(client: ServeClient, version: Version, within_s: float, undo: Callable[[], None]) -> str | None:
    """Make the endpoint of a model serve `version`, and wait until it does. Returns what it served before, by its name.

    Returns None if the endpoint serves it already. Ray Serve replaces the replicas one after the other, and each new one
    first reproduces its golden rows; with one replica there is a gap. If they do not start within `within_s`, `undo` is
    called, which moves back an alias, then what ran before is deployed again, and `ModelError` says why. Raises
    `ResourceError` if the cluster runs no endpoint of the model.
    """
    applications = client.applications()
    name, before = _find_application(applications, version, client.address)
    if before["args"]["model"] == version.ref:
        return None
    after = copy.deepcopy(before)
    after["args"]["model"] = version.ref
    # An application that a program runs, and not a config, has none, and stays.
    configs = {key: details.get("deployed_app_config") for key, details in applications.items() if key != name}
    others = [config for config in configs.values() if config]
    client.deploy([*others, after])
    problem = _wait_until_running(client, name, version.ref, within_s)
    if problem:
        undo()  # first: the config before may name the alias
        client.deploy([*others, before])
        raise ModelError(
            f"{version.ref} does not run: {problem}",
            f"{before['args']['model']} is deployed again; read the log of the replicas, then roll out a fixed version",
        )
    return str(before["args"]["model"])


def _find_application(
    applications: Mapping[str, Any], version: Version, address: JobsAddress
) -> tuple[str, dict[str, Any]]:
    """Return the name and the config of the application that serves a model."""
    for name, details in applications.items():
        config = details.get("deployed_app_config") or {}
        model = str((config.get("args") or {}).get("model", ""))
        if config.get("import_path") == _IMPORT_PATH and model.partition("@")[0] == version.name:
            return name, config
    running = ", ".join(applications) or "no application"
    raise ResourceError(
        f"Ray Serve at {address} runs no endpoint of {version.name}, but {running}",
        f"deploy it first: `raymill deploy-config {version.ref} > serve.yaml`, `serve deploy serve.yaml`",
    )


def _wait_until_running(client: ServeClient, name: str, ref: str, within_s: float) -> str:
    """Return an empty text once the application runs with the model `ref`, or why it does not."""
    deadline = time.monotonic() + within_s
    status = "no status"
    while time.monotonic() < deadline:
        details = client.applications().get(name) or {}
        status = str(details.get("status"))
        config = details.get("deployed_app_config") or {}
        if config.get("args", {}).get("model") == ref:
            if status == _RUNNING:
                return ""
            if status in _FAILED:
                return first_line(ValueError(details.get("message") or status))
        time.sleep(_LOOK_EVERY_S)
    return f"it is {status} after {within_s:g} s"
