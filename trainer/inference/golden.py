"""Golden rows: a few held-out rows with the inputs and scores they had when the model was registered.

A replica replays them before it is ready; whatever has drifted since (library, file, hardware) shows here first, by
row and field. Rows are kept as a request has them, so that reading requests is replayed too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ModelError, RequestError
from cluster.files import read_json, write_json
from trainer.inference.predictor import Predictor
from trainer.tasks.encoder import Columns
from trainer.tasks.input_difference import input_difference

FILE = "golden.json"


#: How many rows are kept.
ROWS = 8


# fp32 on another CPU differs by 1e-6 or so; a wrong tokenizer, weight or label order by far more.
_TOLERANCE = 1e-3


# A text or a row of a table is stored whole; an image has 150,000 numbers.
_MOST_NUMBERS, _FIRST_NUMBERS = 4096, 256


def to_keep(predictor: Predictor, columns: Columns) -> tuple[list[int], dict[str, list[Any]]]:
    """Return which rows become golden rows, and what is stored as their raw values.

    A model's folder must not hold what its `redact` step takes out, so there the cleaned texts are stored, of rows in
    which cleaning finds nothing more to do: they have the same input, and with it the same scores.
    """
    n_rows = len(next(iter(columns.values())))
    if all(step.name != "redact" for step in predictor.contract.steps):
        return list(range(min(ROWS, n_rows))), {role: list(values[:ROWS]) for role, values in columns.items()}
    kept: list[int] = []
    raw: dict[str, list[Any]] = {role: [] for role in columns}
    for at in range(n_rows):
        cleaned, reasons = predictor.clean({role: [values[at]] for role, values in columns.items()})
        if reasons == [None] and predictor.clean(cleaned) == (cleaned, [None]):
            kept.append(at)
            for role, values in cleaned.items():
                raw[role].append(values[0])
        if len(kept) == ROWS:
            break
    return kept, raw


def write(folder: Path, inputs: list[np.ndarray], raw: list[Any], scores: np.ndarray, checked: str = "") -> None:
    """Write golden.json with the rows given.

    `raw` are inputs as a request has them; `scores` has shape (rows, C); `checked` is what the task's `library_agrees`
    returned, kept for people.
    """
    rows = [
        {"raw": raw[at], "inputs": _kept_of(inputs[at]), "scores": [float(s) for s in scores[at]]}
        for at in range(min(ROWS, len(raw)))
    ]
    write_json(folder / FILE, {"tolerance": _TOLERANCE, "library": checked, "rows": rows})


def requests(folder: Path) -> list[Any]:
    """Return the golden rows as a request has them."""
    return [row["raw"] for row in read_json(folder / FILE)["rows"]]


def replay(folder: Path, predictor: Predictor) -> int:
    """Return how many rows were replayed.

    Raises `ModelError` naming row and field of the first that does not come out as recorded.
    """
    try:
        golden: dict[str, Any] = read_json(folder / FILE)
        rows, tolerance = golden["rows"], golden["tolerance"]
        inputs = [_encoded(predictor, at, row["raw"]) for at, row in enumerate(rows)]
        scores = predictor.scores(inputs)
        target, fitted = predictor.task.target, predictor.contract.fitted
        labels, tolerance = target.labels(fitted), tolerance * target.unit(fitted)
        for at, row in enumerate(rows):
            how = input_difference(row["inputs"], _kept_of(inputs[at]), folder)
            how = how or score_difference(row["scores"], scores[at].tolist(), labels, tolerance)
            if how:
                raise _differs(at, f"{how}; {folder} does not answer as it did when the model was registered")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder / FILE} is missing or damaged: {error}", "restore the version, or train again"
        ) from error
    return len(rows)


def _kept_of(inputs: np.ndarray) -> list[Any]:
    """Return a row's input as it is stored: whole, or of a long one (an image) the first numbers and a digest of all."""
    if len(inputs) <= _MOST_NUMBERS:
        return inputs.tolist()
    return [*inputs[:_FIRST_NUMBERS].tolist(), hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).hexdigest()]


def _encoded(predictor: Predictor, at: int, raw: Any) -> np.ndarray:
    try:
        return predictor.encode(predictor.parse([raw]))[0]
    except RequestError as error:
        raise _differs(at, f"raw: it was used when the model was registered, and is refused now: {error}") from error


def _differs(at: int, how: str) -> ModelError:
    return ModelError(
        f"golden row {at}, {how}", "serve with the library versions in the version's lineage.json, or train again"
    )


def score_difference(recorded: list[float], now: list[float], labels: list[str], tolerance: float) -> str:
    """Return the label whose score moved most, if any by more than `tolerance`; else ""."""
    if len(recorded) != len(now):
        return f"length of scores: {len(recorded)} -> {len(now)}"
    gap_C = np.abs(np.asarray(now, float) - np.asarray(recorded, float))
    if gap_C.size == 0 or gap_C.max() <= tolerance:  # a score that is no number is never within it
        return ""
    worst = int(gap_C.argmax())
    name = repr(labels[worst]) if worst < len(labels) else str(worst)
    return (
        f"scores[{name}]: recorded {_score(recorded[worst])}, now {_score(now[worst])} "
        f"(at most {tolerance:g} apart is allowed)"
    )


def _score(value: float) -> str:
    return f"{value:.4f}"
