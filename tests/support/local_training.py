"""Train in this process, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.data.prepare import prepare as preparing
from trainer.data.prepared import Prepared
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.tasks.catalog import get_task
from trainer.tasks.load_spec import load_spec
from trainer.training.callbacks import FunctionCallback
from trainer.training.context import TrainContext
from trainer.training.run import run_training


class LocalTraining:
    """The files and folders that a training in this process wrote."""

    def __init__(self, prepared: Prepared, folder: Path, best: Path | None) -> None:
        self.prepared, self.folder, self.best = prepared, folder, best

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The entries of metrics.jsonl, one per logged step."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def losses(self) -> list[float]:
        """The loss of each entry of `steps`."""
        return [line["loss"] for line in self.steps]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The entries of history.jsonl, one per epoch."""
        return [json.loads(line) for line in (self.folder / "history.jsonl").read_text().splitlines()]

    @property
    def notices(self) -> list[str]:
        """The sentences for the user."""
        path = self.folder / "notices.jsonl"
        return [json.loads(line)["text"] for line in path.read_text().splitlines()] if path.is_file() else []


def train_in_process(spec: dict[str, Any], folder: Path, threads: int = 1) -> LocalTraining:
    """Train with `spec`, or resume the training in `folder`. The best epoch's model is saved there as `best-<epoch>`."""
    loaded = load_spec(spec)
    folder.mkdir(parents=True, exist_ok=True)
    prepared = preparing.prepare_rows(loaded, lambda progress: None, folder / "quarantine.parquet")
    best: list[Path] = []

    def report(metrics: dict[str, Any], save: Any) -> None:
        if save is not None:
            best[:] = [folder / f"best-{metrics['epoch']}"]
            save(best[0])

    worker = WorkerContext(0, 1, "cpu", threads)
    run_training(TrainContext(get_task(loaded.task), loaded, prepared, worker, FunctionCallback(report), folder))
    return LocalTraining(prepared, folder, best[0] if best else None)
