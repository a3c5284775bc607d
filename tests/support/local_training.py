"""A training in this process, without Ray around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.data.prepare import prepare as preparing
from trainer.data.prepared import Prepared
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.tasks import catalog as task_catalog
from trainer.tasks.resolve import load
from trainer.training.run import run


class LocalTraining:
    """What a training left."""

    def __init__(self, prepared: Prepared, folder: Path, best: Path | None) -> None:
        self.prepared, self.folder, self.best = prepared, folder, best

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The lines by step."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def losses(self) -> list[float]:
        """The loss of each line by step."""
        return [line["loss"] for line in self.steps]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The lines by epoch."""
        return [json.loads(line) for line in (self.folder / "history.jsonl").read_text().splitlines()]

    @property
    def notices(self) -> list[str]:
        """What was told."""
        path = self.folder / "notices.jsonl"
        return [json.loads(line)["text"] for line in path.read_text().splitlines()] if path.is_file() else []


def train_in_process(spec: dict[str, Any], folder: Path, threads: int = 1) -> LocalTraining:
    """Train with `spec`, or go on with what lies in `folder`; the best epoch's model is kept there as `best-<epoch>`."""
    loaded = load(spec)
    folder.mkdir(parents=True, exist_ok=True)
    prepared = preparing.prepare(loaded, lambda progress: None, folder / "quarantine.parquet")
    best: list[Path] = []

    def report(figures: dict[str, Any], save: Any, state: Any = None) -> None:
        if save is not None:
            best[:] = [folder / f"best-{figures['epoch']}"]
            save(best[0])

    run(task_catalog.get_task(loaded.task), loaded, prepared, WorkerContext(0, 1, "cpu", threads), report, folder)
    return LocalTraining(prepared, folder, best[0] if best else None)
