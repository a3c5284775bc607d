"""A run in MLflow: the spec as parameters, metrics by step, the run's files, and the registered version with its alias.

Only the client is needed (mlflow-skinny). mlflow.json in the run's folder names its MLflow run, so a resumed training
continues the same MLflow run.

MLflow refuses some names and values, such as the parameter `price (EUR)`. Refused characters are replaced; what is refused
all the same is left out alone, and `notify` gets a sentence.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import ModelError, error_summary
from cluster.files import read_json, write_json
from cluster.text import list_some
from trainer.registry.registry import Version
from trainer.spec.run import RunSpec
from trainer.training.tracking.names import allowed_names
from trainer.training.tracking.queued import QueuedTracker

FILE = "mlflow.json"
# MLflow's limits: the number of parameters in one call, and the length of a value (mlflow.utils.validation).
_PARAMS_PER_CALL, _MAX_PARAM_LENGTH = 100, 500
# The characters that MLflow refuses in names of parameters and metrics, and the longest name that it takes.
_REFUSED, _MAX_NAME_LENGTH = re.compile(r"[^/\w.\- :]"), 250
_MAX_NAMES_SHOWN = 2
# Give up on an unresponsive server within seconds. With MLflow's defaults it takes many minutes.
_CLIENT_ENV = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_FILES = (
    "spec.yaml",
    "resolved.yaml",
    "environment.json",
    "history.jsonl",
    "metrics.jsonl",
    "report.html",
    "result.json",
)
_MODEL = "model"


#: Takes a sentence for the user.
Notify = Callable[[str], None]


class MlflowTracker:
    """Sends metrics to one MLflow run."""

    def __init__(self, client: Any, run_id: str, notify: Notify) -> None:
        self._client, self._run_id, self._notify = client, run_id, notify
        self._refused: set[str] = set()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send metrics. A metric that MLflow refuses is reported once and not sent again."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        names = allowed_names(metrics, _REFUSED, _MAX_NAME_LENGTH)
        values = [Metric(names[name], float(metrics[name]), now, step) for name in names]
        known = [value for value in values if value.key not in self._refused]
        refused = _log_batch(self._client, self._run_id, "metrics", known)
        self._refused |= set(refused)
        _report_refused(self._notify, "metric", refused)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run_id)


def start(spec: RunSpec, folder: Path, notify: Notify) -> QueuedTracker:
    """Create or continue the MLflow run of `folder`, and return its tracker.

    Raises `ModelError` if MLflow's client is not installed.
    """
    client = _client(spec)
    return QueuedTracker(MlflowTracker(client, _ensure_run(client, spec, folder, notify), notify))


def publish_run(
    spec: RunSpec, folder: Path, notify: Notify, version: Version | None = None, alias: str | None = None
) -> None:
    """Send the files of the run in `folder`; register `version`, and point `alias` to it.

    A file that cannot be sent is reported, and the others are sent.
    """
    client = _client(spec)
    run_id = _ensure_run(client, spec, folder, notify)
    for name in _FILES:
        path = folder / name
        if path.is_file():
            try:
                client.log_artifact(run_id, str(path))
            except Exception as error:  # any exception of the service's client
                notify(f"mlflow did not get {name}: {error_summary(error)}")
                if not _is_refusal(error):
                    return  # the server is gone: do not wait for it once per file
    assert spec.track.mlflow is not None
    if version is None or not spec.track.mlflow.register_model:
        return
    try:
        _register(client, run_id, version, alias)
    except Exception as error:  # any exception of the service's client
        notify(f"mlflow did not register {version.ref}: {error_summary(error)}")


def _register(client: Any, run_id: str, version: Version, alias: str | None) -> None:
    client.log_artifacts(run_id, str(version.folder), _MODEL)
    _ensure_model(client, version.name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{_MODEL}"
    tags = {"raymill_version": str(version.number)}
    registered = client.create_model_version(version.name, source, run_id, tags=tags)
    if alias:
        client.set_registered_model_alias(version.name, alias, registered.version)


def _client(spec: RunSpec) -> Any:
    for name, value in _CLIENT_ENV.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ModelError("track.mlflow needs MLflow's client", "pip install 'raymill[mlflow]'") from error
    assert spec.track.mlflow is not None
    return MlflowClient(tracking_uri=spec.track.mlflow.uri)


def _ensure_run(client: Any, spec: RunSpec, folder: Path, notify: Notify) -> str:
    """Return the id of the folder's MLflow run; create the run if there is none."""
    if (folder / FILE).is_file():
        known_id: str = read_json(folder / FILE)["run_id"]
        return known_id
    assert spec.track.mlflow is not None
    name = spec.track.mlflow.experiment or spec.name
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    run_id: str = client.create_run(experiment_id, run_name=folder.name, tags={"raymill_run": str(folder)}).info.run_id
    write_json(folder / FILE, {"run_id": run_id})
    _log_params(client, run_id, spec, notify)
    return run_id


def _log_params(client: Any, run_id: str, spec: RunSpec, notify: Notify) -> None:
    from mlflow.entities import Param

    flat = {key: value for key, value in _flatten(spec.model_dump(mode="json")) if value is not None}
    names = allowed_names(flat, _REFUSED, _MAX_NAME_LENGTH)
    params = [Param(names[key], str(value)[:_MAX_PARAM_LENGTH]) for key, value in flat.items()]
    refused = []
    for first in range(0, len(params), _PARAMS_PER_CALL):
        refused += _log_batch(client, run_id, "params", params[first : first + _PARAMS_PER_CALL])
    _report_refused(notify, "parameter", refused)
    renamed = [f"{key!r} as {name!r}" for key, name in names.items() if key != name]
    if renamed:
        notify(f"mlflow has {list_some(renamed, _MAX_NAMES_SHOWN)}: it takes no other characters in names")


def _log_batch(client: Any, run_id: str, kind: str, items: Sequence[Any]) -> list[str]:
    """Send parameters or metrics, all in one call, and one by one if MLflow refuses one. Return the refused names."""
    from mlflow.exceptions import MlflowException

    if not items:
        return []
    try:
        client.log_batch(run_id, **{kind: items})
        return []
    except MlflowException as error:
        if not _is_refusal(error):
            raise
        if len(items) == 1:
            return [str(items[0].key)]
    return [name for item in items for name in _log_batch(client, run_id, kind, [item])]


def _is_refusal(error: Exception) -> bool:
    """Return whether MLflow answered that it does not take a name or a value, and not that it cannot work."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def _report_refused(notify: Notify, kind: str, names: Sequence[str]) -> None:
    if names:
        notify(
            f"mlflow refuses the {kind} {list_some([repr(name) for name in names], _MAX_NAMES_SHOWN)}; it is left out there"
        )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
