"""What a search knows of its trials, a folder each: it outlives the driver, Ray, and Ray Tune's own state, which is pickle.

trials/0007/values.json       what was tried           trials/0007-seed-43   a finalist with another seed
            history.jsonl     its epochs
            model.json        how large its weights are
            ended.json        how it ended; without one it is to go on
tune-1/0007/checkpoint_...    what Ray Tune keeps of it: the best epoch's model
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cluster.files import read_json, write_json
from trainer.runs.journal import read_history
from trainer.runs.result import TrialRecord
from trainer.spec.run import RunSpec
from trainer.training.checkpoint import best_model as best_models
from trainer.training.checkpoint.export import epoch_of
from trainer.training.worker import FAILURE, failure
from tune.point import Point

_TRIALS, _VALUES, _ENDED, _MODEL = "trials", "values.json", "ended.json", "model.json"


_ATTEMPT = "tune-"


_SEED = "-seed-"


End = Literal["finished", "stopped", "failed"]


def size_mb(folder: Path) -> float:
    """Return the megabytes (1e6 bytes) of a model's folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def better_of(spec: RunSpec) -> Callable[..., Any]:
    """Return max or min: what picks the best by `evaluate.metric`."""
    return max if spec.evaluate.mode == "max" else min


def figures_of(history: list[dict[str, Any]], spec: RunSpec) -> dict[str, float]:
    """Return the figures of a training's best epoch, and its seconds in all."""
    best = better_of(spec)(history, key=lambda epoch: epoch[spec.evaluate.metric])
    figures = {key: float(value) for key, value in best.items() if key not in ("epoch", "seconds")}
    return {**figures, "train.seconds": round(sum(epoch["seconds"] for epoch in history), 2)}


class Records:
    """Those of the search in a run's folder."""

    def __init__(self, folder: Path, spec: RunSpec) -> None:
        self._folder, self._spec, self.metric = folder, spec, spec.evaluate.metric
        self._pick = better_of(spec)

    def place(self, name: str) -> Path:
        """Return the folder of a trial."""
        return self._folder / _TRIALS / name

    def names(self, *, finals: bool) -> list[str]:
        """Return the trials that were begun, in order: those of the search, or those of its finals."""
        there = [path.parent.name for path in (self._folder / _TRIALS).glob(f"*/{_VALUES}")]
        return sorted(name for name in there if (_SEED in name) is finals)

    def new_attempt(self) -> str:
        """Return a name for Ray Tune's folder that none had before: under an old one it would read what it pickled."""
        return f"{_ATTEMPT}{1 + len(list(self._folder.glob(f'{_ATTEMPT}*')))}"

    def begin(self, point: Point) -> None:
        """Take note of a trial that begins, or goes on."""
        place = self.place(point.name)
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / _VALUES, point.values)

    def end(self, name: str, how: End, why: str = "") -> None:
        """Take note of how a trial ended; the first word stands."""
        if not (self.place(name) / _ENDED).is_file():
            write_json(self.place(name) / _ENDED, {"how": how, "why": why})

    def weigh(self, name: str, model: Path) -> None:
        """Take note of how large a trial's model is."""
        write_json(self.place(name) / _MODEL, {"size_mb": round(size_mb(model), 3)})

    def point(self, name: str) -> Point:
        """Return what a trial tries."""
        return Point(name, read_json(self.place(name) / _VALUES))

    def values(self) -> list[dict[str, Any]]:
        """Return what each trial tries that was begun."""
        return [self.point(name).values for name in self.names(finals=False)]

    def has_ended(self, name: str) -> bool:
        """Whether nothing more is to come of a trial."""
        return (self.place(name) / _ENDED).is_file()

    def read(self, name: str) -> TrialRecord:
        """Return what is known of a trial."""
        place = self.place(name)
        history = read_history(place)
        ended = read_json(place / _ENDED) if self.has_ended(name) else {"how": "running", "why": ""}
        figures = figures_of(history, self._spec) if history else {}
        if (place / _MODEL).is_file():
            figures["model.size_mb"] = read_json(place / _MODEL)["size_mb"]
        return TrialRecord(
            name=name,
            values=self.point(name).values,
            metric=figures.get(self.metric),
            epochs=len(history),
            seconds=figures.get("train.seconds", 0.0),
            history=history,
            error=ended["why"] or None if ended["how"] == "failed" else None,
            state=ended["how"],
            figures=figures,
        )

    def all(self, *, finals: bool) -> list[TrialRecord]:
        """Return what is known of all trials, in the order they began."""
        return [self.read(name) for name in self.names(finals=finals)]

    def mistake(self) -> Exception | None:
        """Return a mistake of the user's that a trial found, if one did."""
        found = (failure(path.parent) for path in sorted((self._folder / _TRIALS).glob(f"*/{FAILURE}")))
        return next((each for each in found if each), None)

    def checkpoint(self, name: str) -> Path | None:
        """Return the folder of a trial's best model; None where it has none any more."""
        best: tuple[float, Path] | None = None
        for path in self.checkpoints(name):
            try:
                value = float(epoch_of(path)[self.metric])
            except (OSError, ValueError, KeyError):
                continue  # one that was never whole
            # Of equals the later one: before it lies what a killed attempt may have left half copied.
            if best is None or self._pick(value, best[0]) == value:
                best = value, path
        return best[1] if best else None

    def forget_model(self, name: str) -> None:
        """Remove a loser's weights: 91 MB each even for a small encoder, and nothing reads them again."""
        for path in self.checkpoints(name):
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.place(name) / "checkpoints", ignore_errors=True)

    def checkpoints(self, name: str) -> list[Path]:
        """Return what there is of a trial: what it handed to Ray Tune, and, with several workers, what these keep."""
        own = best_models.newest(self.place(name))
        return [*sorted(self._folder.glob(f"{_ATTEMPT}*/{name}/checkpoint_*")), *([own] if own else [])]


def final_name(name: str, seed: int) -> str:
    """Return what a finalist is called with another seed."""
    return f"{name}{_SEED}{seed}"


def of_final(name: str) -> str:
    """Return which trial a final is of."""
    return name.partition(_SEED)[0]
