"""The labels of a run's metrics for Prometheus, and the files that name its ports."""

from __future__ import annotations

from pathlib import Path

from cluster.monitoring.gauges import TARGETS_FOLDER
from trainer.runs.folder import runs_folder
from trainer.spec.run import RunSpec


def metric_labels(spec: RunSpec, folder: Path) -> dict[str, str]:
    """Return the labels of all metrics of the run, or of the trial of a search, in `folder`."""
    return {"model": spec.name, "run": _run_name(spec, folder)}


def targets_file(spec: RunSpec, folder: Path, part: str = "") -> Path | None:
    """Return the file that names the port of the run's metrics; None without `track.prometheus`.

    `part` sets the file of another process of the run apart.
    """
    if not spec.track.prometheus:
        return None
    name = _run_name(spec, folder).replace("/", "-") + (f"-{part}" if part else "")
    return Path(spec.storage) / TARGETS_FOLDER / f"{name}.json"


def _run_name(spec: RunSpec, folder: Path) -> str:
    """Return the run's name; for the trial of a search, the search's name with the trial's: `RUN/trials/0007`."""
    runs = runs_folder(Path(spec.storage))
    return folder.relative_to(runs).as_posix() if folder.is_relative_to(runs) else folder.name
