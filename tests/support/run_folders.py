"""Folders of runs, without Ray: a training in this process, and its result as `raymill train` writes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cluster.files import write_json
from support.local_training import train_in_process
from trainer.pipeline.outcome import Outcome
from trainer.runs.folder import create_run, save_prepared_path
from trainer.runs.journal import RESULT
from trainer.spec.evaluate import LOWER_IS_BETTER
from trainer.tasks.load_spec import load_spec


def train_run(spec: dict[str, Any], *, kind: str = "train", finished: bool = True) -> Path:
    """Train with `spec` into a new run's folder and return it; with `finished=False`, without a result."""
    folder = create_run(load_spec(spec), kind)
    done = train_in_process(spec, folder)
    save_prepared_path(folder, done.prepared.folder)
    if finished:
        metric = load_spec(spec).evaluate.metric
        select_best = min if metric in LOWER_IS_BETTER else max
        best = select_best(done.epochs, key=lambda epoch: epoch[metric])
        outcome = Outcome(
            run=str(folder),
            fingerprint=done.prepared.contract.fingerprint,
            metrics={"validation": {name: value for name, value in best.items() if name not in ("epoch", "seconds")}},
            stages={"prepare": 1.0, "train": round(sum(epoch["seconds"] for epoch in done.epochs), 2)},
        )
        write_json(folder / RESULT, outcome.as_dict())
    return folder


def write_run(storage: Path, name: str = "a", kind: str = "train", **spec: Any) -> Path:
    """Write a run's folder that has only begun: spec and environment, no training. `spec` are further sections."""
    base = {"name": name, "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(storage)}
    return create_run(load_spec({**base, **spec}), kind)


def finish_run(folder: Path, **fields: Any) -> Path:
    """Write a result with these fields, and return the folder."""
    write_json(folder / RESULT, {"run": str(folder), "stages": {"train": 2.5}, **fields})
    return folder


def write_epochs(folder: Path, values: list[float], metric: str = "macro_f1") -> None:
    """Write a history with these values of the metric."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"epoch": epoch, "seconds": 1.0, "train_loss": 1 / epoch, "log_loss": 1.1 / epoch, metric: value}
        for epoch, value in enumerate(values, 1)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_older(folder: Path, days: float) -> None:
    """Set the times of all files in a folder back."""
    for path in [folder, *folder.rglob("*")]:
        changed = path.lstat().st_mtime - days * 86_400
        os.utime(path, (changed, changed), follow_symlinks=False)
