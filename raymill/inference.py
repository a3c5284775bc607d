"""Use a registered model without an endpoint: evaluate it, predict files, or load it into this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.session import STORAGE, console_or_default, find_version, storage_folder

if TYPE_CHECKING:
    from cluster.console import Console
    from trainer.inference.predictor import Predictor
    from trainer.spec.answers import AnswersSpec


def evaluate(
    model: str,
    *,
    data: str | None = None,
    format: str | Mapping[str, Any] | Sequence[str] = "auto",
    storage: str | Path = STORAGE,
    address: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Return a registered model's metrics on the labeled file `data`, by default on its held-out rows. Writes a report.

    `format` says how the file is read, like `data.format` of a spec: `"csv"`, or `{"encoding": "cp1252"}`. Computes in
    this process, or on the Ray cluster at `address`.
    """
    from trainer.pipeline.models import evaluate_version
    from trainer.spec.format_option import read_format

    version = find_version(model, storage)
    shown = console_or_default(console)
    return evaluate_version(version, data, read_format(format), storage_folder(storage), shown, address)


def predict(
    model: str,
    inputs: str | list[str],
    output: str | Path | None = None,
    *,
    format: str | Mapping[str, Any] | Sequence[str] = "auto",
    storage: str | Path = STORAGE,
    address: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write predictions for csv, jsonl or parquet files with Ray Data. Returns the output's path and row counts.

    Without `output`, writes `<first input>.predictions.jsonl` into the working directory. `format` says how the files
    are read, like `data.format` of a spec: `"csv"`, or `{"encoding": "cp1252"}`. `max_tokens` (256 by default) and
    `temperature` (0: the most probable token) are for models that write text.
    """
    from trainer.pipeline.models import predict_version
    from trainer.spec.format_option import read_format

    version = find_version(model, storage)
    first = inputs if isinstance(inputs, str) else inputs[0]
    target = Path(output) if output else Path(f"{Path(first).stem}.predictions.jsonl")
    shown = console_or_default(console)
    reading = read_format(format)
    folder = storage_folder(storage)
    limits = _limits(max_tokens, temperature)
    return predict_version(version, inputs, target.absolute(), reading, folder, shown, address, limits)


def _limits(max_tokens: int | None, temperature: float | None) -> AnswersSpec | None:
    """Return the limits of written answers; None if the caller sets none."""
    from cluster.errors import SpecError
    from trainer.inference.predictor import MAX_TOKENS
    from trainer.spec.answers import AnswersSpec

    if max_tokens is None and temperature is None:
        return None
    tokens, heat = MAX_TOKENS if max_tokens is None else max_tokens, temperature or 0.0
    if tokens < 1 or not 0.0 <= heat <= 2.0:
        raise SpecError(
            f"max_tokens={tokens} and temperature={heat:g} are not possible",
            "set max_tokens to at least 1, and temperature from 0 to 2",
        )
    return AnswersSpec(max_tokens=tokens, temperature=heat)


def load(model: str, *, storage: str | Path = STORAGE) -> Predictor:
    """Load a registered model into this process, after checking all its files.

    For example `load("name@champion").predict(["..."])`.
    """
    from trainer.inference.predictor import Predictor

    return Predictor(find_version(model, storage).folder)
