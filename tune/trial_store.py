"""The trials of a search on disk, one folder each. They outlive the driver, Ray, and Ray Tune's pickled state.

trials/0007/values.json       the values it tries      trials/0007-seed-43   a finalist trained with another seed
            history.jsonl     its epochs
            model.json        the size of its weights
            ended.json        how it ended; without this file, the trial is resumed
tune-1/0007/checkpoint_...    Ray Tune's copy of the best epoch's model
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cluster.files import read_json, wait_for_folders, write_json
from trainer.runs.journal import ERROR, FAILURE, read_history
from trainer.runs.result import TrialRecord
from trainer.spec.run import RunSpec
from trainer.training.checkpoint.best_model import newest_model
from trainer.training.checkpoint.export import read_epoch
from trainer.training.worker import read_failure
from tune.point import Point

_TRIALS, _VALUES, _ENDED, _MODEL = "trials", "values.json", "ended.json", "model.json"
_CHECKPOINTS = "checkpoints"
_ATTEMPT_PREFIX = "tune-"
_SEED_INFIX = "-seed-"
_MB = 1e6

FinalState = Literal["finished", "stopped", "failed"]


class TrialStore:
    """The trials in a run's folder. A trial of a finalist with another seed is called reseeded."""

    def __init__(self, folder: Path, spec: RunSpec) -> None:
        self._folder, self._spec, self.metric = folder, spec, spec.evaluate.metric
        self._select_best = max_or_min(spec)

    def folder(self, name: str) -> Path:
        """Return the folder of a trial."""
        return self._folder / _TRIALS / name

    def names(self, *, reseeded: bool) -> list[str]:
        """Return the sorted names of the trials that were started: only the reseeded trials, or only the others."""
        started = [path.parent.name for path in (self._folder / _TRIALS).glob(f"*/{_VALUES}")]
        return sorted(name for name in started if (_SEED_INFIX in name) is reseeded)

    def all_names(self) -> list[str]:
        """Return the names of all trials that were started, the reseeded trials last."""
        return [*self.names(reseeded=False), *self.names(reseeded=True)]

    def new_attempt_name(self) -> str:
        """Return a new name for Ray Tune's folder: under an old name, Ray Tune would read its pickled state."""
        return f"{_ATTEMPT_PREFIX}{1 + len(list(self._folder.glob(f'{_ATTEMPT_PREFIX}*')))}"

    def start(self, point: Point) -> None:
        """Record that a trial starts or resumes. Waits for storage that is away."""
        wait_for_folders([self._folder])
        folder = self.folder(point.name)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _VALUES, point.values)

    def end(self, name: str, state: FinalState, reason: str = "") -> None:
        """Record how a trial ended. The first record of a trial stays. Waits for storage that is away."""
        wait_for_folders([self.folder(name)])
        if not self.has_ended(name):
            write_json(self.folder(name) / _ENDED, {"how": state, "why": reason})

    def has_ended(self, name: str) -> bool:
        """Return whether a trial has ended, so that it is not resumed."""
        return (self.folder(name) / _ENDED).is_file()

    def last_error(self, name: str) -> str:
        """Return the type and the text of the error that ended the last attempt at a trial; "" if there was none."""
        try:
            error = read_json(self.folder(name) / ERROR)
            return f"{error['kind']}: {error['text']}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def record_size(self, name: str, model: Path) -> None:
        """Record the size of a trial's model."""
        write_json(self.folder(name) / _MODEL, {"size_mb": round(folder_size_mb(model), 3)})

    def read_point(self, name: str) -> Point:
        """Return the point that a trial tries."""
        return Point(name, read_json(self.folder(name) / _VALUES))

    def all_values(self) -> list[dict[str, Any]]:
        """Return the values of every trial that was started, without the reseeded ones."""
        return [self.read_point(name).values for name in self.names(reseeded=False)]

    def read(self, name: str) -> TrialRecord:
        """Return the record of a trial."""
        folder = self.folder(name)
        history = read_history(folder)
        end = read_json(folder / _ENDED) if self.has_ended(name) else {"how": "running", "why": ""}
        metrics = summarize_history(history, self._spec) if history else {}
        if (folder / _MODEL).is_file():
            metrics["model.size_mb"] = read_json(folder / _MODEL)["size_mb"]
        return TrialRecord(
            name=name,
            values=self.read_point(name).values,
            metric=metrics.get(self.metric),
            epochs=len(history),
            seconds=metrics.get("train.seconds", 0.0),
            history=history,
            error=end["why"] or None if end["how"] == "failed" else None,
            state=end["how"],
            metrics=metrics,
        )

    def read_all(self, *, reseeded: bool) -> list[TrialRecord]:
        """Return the records of the reseeded trials or of the others, in the order of their names."""
        return [self.read(name) for name in self.names(reseeded=reseeded)]

    def first_user_error(self) -> Exception | None:
        """Return the first `UserError` that a trial recorded, or None."""
        errors = (read_failure(path.parent) for path in sorted((self._folder / _TRIALS).glob(f"*/{FAILURE}")))
        return next((error for error in errors if error), None)

    def best_checkpoint(self, name: str) -> Path | None:
        """Return the folder of a trial's best model, or None if it has none."""
        best: tuple[float, Path] | None = None
        for path in self.checkpoints(name):
            try:
                value = float(read_epoch(path)[self.metric])
            except (OSError, ValueError, KeyError):
                continue  # an incomplete checkpoint
            # If two are equal, take the later: a killed attempt may have left an incomplete copy.
            if best is None or self._select_best(value, best[0]) == value:
                best = value, path
        return best[1] if best else None

    def checkpoints(self, name: str) -> list[Path]:
        """Return a trial's checkpoints: those in Ray Tune's folders, and the best model that several workers saved."""
        own = newest_model(self.folder(name))
        return [*sorted(self._folder.glob(f"{_ATTEMPT_PREFIX}*/{name}/checkpoint_*")), *([own] if own else [])]

    def delete_models(self, name: str) -> None:
        """Delete the weights of a trial that did not win: 91 MB for a small encoder, and nothing reads them again."""
        for path in self.checkpoints(name):
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.folder(name) / _CHECKPOINTS, ignore_errors=True)


def folder_size_mb(folder: Path) -> float:
    """Return the size of all files in a folder in megabytes (1e6 bytes)."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MB


def max_or_min(spec: RunSpec) -> Callable[..., Any]:
    """Return the built-in function that selects the best value of `evaluate.metric`."""
    return max if spec.evaluate.mode == "max" else min


def summarize_history(history: list[dict[str, Any]], spec: RunSpec) -> dict[str, float]:
    """Return the metrics of a training's best epoch, with the seconds of all epochs as `train.seconds`."""
    best = max_or_min(spec)(history, key=lambda epoch: epoch[spec.evaluate.metric])
    metrics = {key: float(value) for key, value in best.items() if key not in ("epoch", "seconds")}
    return {**metrics, "train.seconds": round(sum(epoch["seconds"] for epoch in history), 2)}


def reseeded_name(name: str, seed: int) -> str:
    """Return the name of a finalist's training with another seed."""
    return f"{name}{_SEED_INFIX}{seed}"


def original_name(name: str) -> str:
    """Return the name of the trial that a reseeded trial repeats; for any other trial, its own name."""
    return name.partition(_SEED_INFIX)[0]
