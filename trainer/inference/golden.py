"""Golden rows: a few held-out rows stored with the inputs and scores they had when the model was registered.

A replica must reproduce them before it takes traffic, so a drift of libraries, files or hardware is reported by row and
field. Rows are stored as requests with JSON values of their own types (3, true, null), so that parsing requests is
checked, too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ModelError, RequestError
from cluster.files import read_json, write_json
from trainer.inference.predictor import Predictor
from trainer.targets.base import Target
from trainer.tasks.encoder import Columns
from trainer.tasks.input_difference import input_difference

GOLDEN_FILE = "golden.json"
#: Number of golden rows of a version.
MAX_ROWS = 8
#: Version of golden.json. Version 1, without this field, had all cells of a table as text.
VERSION = 2
# fp32 scores differ by about 1e-6 between CPUs; a wrong tokenizer, weight or label order differs by far more.
_TOLERANCE = 1e-3
# Inputs of texts and tables are stored in full. An image has 150,000 numbers: the first ones and a digest are stored.
_MAX_NUMBERS, _FIRST_NUMBERS = 4096, 256


def select_rows(predictor: Predictor, columns: Columns) -> tuple[list[int], dict[str, list[Any]]]:
    """Return the indices of the golden rows, and the raw values to store for them.

    A model's folder must not contain what its `redact` step removes. If the contract has this step, the cleaned texts
    are stored, and only rows are selected whose cleaned texts stay the same when cleaned again. For these rows, raw and
    cleaned texts have the same model inputs, and therefore the same scores.
    """
    n_rows = len(next(iter(columns.values())))
    if all(step.name != "redact" for step in predictor.contract.steps):
        return list(range(min(MAX_ROWS, n_rows))), {role: list(values[:MAX_ROWS]) for role, values in columns.items()}
    selected: list[int] = []
    raw: dict[str, list[Any]] = {role: [] for role in columns}
    for row in range(n_rows):
        cleaned, reasons = predictor.clean({role: [values[row]] for role, values in columns.items()})
        if reasons == [None] and predictor.clean(cleaned) == (cleaned, [None]):
            selected.append(row)
            for role, values in cleaned.items():
                raw[role].append(values[0])
        if len(selected) == MAX_ROWS:
            break
    return selected, raw


def write_golden(
    folder: Path, inputs: list[np.ndarray], raw: list[Any], scores: np.ndarray, library_note: str = ""
) -> None:
    """Write golden.json with the first rows.

    `raw` are inputs in the form of requests; `scores` has shape (rows, C); `library_note` is what the task's
    `check_against_library` returned, stored for readers.
    """
    rows = [
        {"raw": raw[row], "inputs": _stored_input(inputs[row]), "scores": [float(score) for score in scores[row]]}
        for row in range(min(MAX_ROWS, len(raw)))
    ]
    content = {"version": VERSION, "tolerance": _TOLERANCE, "library": library_note, "rows": rows}
    write_json(folder / GOLDEN_FILE, content)


def load_requests(folder: Path) -> list[Any]:
    """Return the golden rows in the form of requests."""
    return [row["raw"] for row in read_json(folder / GOLDEN_FILE)["rows"]]


def verify_golden(folder: Path, predictor: Predictor) -> int:
    """Predict the golden rows, compare them with their recorded inputs and scores, and return the number of rows.

    Raises `ModelError` naming row and field of the first difference.
    """
    try:
        golden: dict[str, Any] = read_json(folder / GOLDEN_FILE)
        _check_version(folder, golden.get("version", 1))
        rows, tolerance = golden["rows"], golden["tolerance"]
        inputs = [_encode_row(predictor, index, row["raw"]) for index, row in enumerate(rows)]
        scores = predictor.scores(inputs)
        target, fitted = predictor.task.target, predictor.contract.fitted
        labels, tolerance = target.labels(fitted), tolerance * target.unit(fitted)
        for index, row in enumerate(rows):
            difference = input_difference(row["inputs"], _stored_input(inputs[index]), folder)
            stored = row["scores"]
            difference = difference or _score_difference(target, stored, scores[index].tolist(), labels, tolerance)
            if difference:
                raise _drift_error(
                    index, f"{difference}; {folder} no longer predicts what it did when it was registered"
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder / GOLDEN_FILE} is missing or damaged: {error}", "restore the version, or train again"
        ) from error
    return len(rows)


def _score_difference(
    target: Target, recorded: list[float], now: list[float], labels: list[str], tolerance: float
) -> str:
    """Return `score_difference` of what the target compares of a row's scores."""
    if len(recorded) == len(now):
        recorded, now = (target.stable_scores(np.asarray([scores], float))[0].tolist() for scores in (recorded, now))
    return score_difference(recorded, now, labels, tolerance)


def _check_version(folder: Path, version: Any) -> None:
    """Raise `ModelError` for golden rows that another version of raymill wrote."""
    if version != VERSION:
        raise ModelError(
            f"{folder / GOLDEN_FILE} has version {version} of golden rows, and this raymill reads version {VERSION}",
            "train again, or use the raymill that trained the model",
        )


def _stored_input(inputs: np.ndarray) -> list[Any]:
    """Return the stored form of a row's input: all numbers, or for a long one (an image) the first numbers and a digest."""
    if len(inputs) <= _MAX_NUMBERS:
        return inputs.tolist()
    return [*inputs[:_FIRST_NUMBERS].tolist(), hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).hexdigest()]


def _encode_row(predictor: Predictor, row: int, raw: Any) -> np.ndarray:
    try:
        return predictor.encode(predictor.parse([raw]))[0]
    except RequestError as error:
        raise _drift_error(row, f"raw: accepted when the model was registered, rejected now: {error}") from error


def _drift_error(row: int, difference: str) -> ModelError:
    return ModelError(
        f"golden row {row}, {difference}",
        "install the library versions that the version's lineage.json lists, or train again",
    )


def score_difference(recorded: list[float], now: list[float], labels: list[str], tolerance: float) -> str:
    """Describe the score that changed most. Return an empty string if it changed by at most `tolerance`."""
    if len(recorded) != len(now):
        return f"length of scores: {len(recorded)} -> {len(now)}"
    gap_C = np.abs(np.asarray(now, float) - np.asarray(recorded, float))
    if gap_C.size == 0 or gap_C.max() <= tolerance:  # a NaN fails this test, so it is reported
        return ""
    worst = int(gap_C.argmax())
    name = repr(labels[worst]) if worst < len(labels) else str(worst)
    return (
        f"scores[{name}]: recorded {_format_score(recorded[worst])}, now {_format_score(now[worst])} "
        f"(the tolerance is {tolerance:g})"
    )


def _format_score(value: float) -> str:
    return f"{value:.4f}"
