"""A registered model on files: metrics on labeled rows, predictions for unlabeled ones, the model in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.session import STORAGE, console_or_default, find_version, storage_folder

if TYPE_CHECKING:
    from cluster.console import Console
    from trainer.inference.predictor import Predictor


def evaluate(
    model: str,
    *,
    data: str | None = None,
    storage: str | Path = STORAGE,
    address: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Return a registered model's metrics on its held-out rows or on a labeled file, and write a report.

    Computes in this process, or on the Ray at `address`.
    """
    from trainer.pipeline.models import evaluate_version

    version = find_version(model, storage)
    return evaluate_version(version, data, storage_folder(storage), console_or_default(console), address)


def predict(
    model: str,
    inputs: str | list[str],
    output: str | Path | None = None,
    *,
    storage: str | Path = STORAGE,
    address: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write predictions for csv, jsonl or parquet files with Ray Data. Returns the output's path and the counts.

    Without `output`, writes `<input>.predictions.jsonl` into the working directory.
    """
    from trainer.pipeline.models import predict_version

    version = find_version(model, storage)
    first = inputs if isinstance(inputs, str) else inputs[0]
    target = Path(output) if output else Path(f"{Path(first).stem}.predictions.jsonl")
    shown = console_or_default(console)
    return predict_version(version, inputs, target.absolute(), storage_folder(storage), shown, address)


def load(model: str, *, storage: str | Path = STORAGE) -> Predictor:
    """Return a registered model in this process, with every file checked: `load("name@champion").predict(["..."])`."""
    from trainer.inference.predictor import Predictor

    return Predictor(find_version(model, storage).folder)
