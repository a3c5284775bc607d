"""Golden rows: a few held-out rows with the inputs and scores they had when the model was registered.

A replica replays them before it is ready; whatever has drifted since (library, file, hardware) shows here first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ModelError
from cluster.files import read_json, write_json
from trainer.predictor import Predictor

FILE = "golden.json"
#: How many rows are kept.
ROWS = 8
# fp32 on another CPU differs by 1e-6 or so; a wrong tokenizer, weight or label order by far more.
_TOLERANCE = 1e-3


def write(folder: Path, predictor_inputs: list[np.ndarray], raw: list[str], scores: np.ndarray) -> None:
    """Write golden.json with the first rows of the held-out part."""
    rows = [
        {"raw": raw[at], "inputs": predictor_inputs[at].tolist(), "scores": [float(s) for s in scores[at]]}
        for at in range(min(ROWS, len(raw)))
    ]
    write_json(folder / FILE, {"tolerance": _TOLERANCE, "rows": rows})


def replay(folder: Path, predictor: Predictor) -> int:
    """Return how many rows were replayed; raises `ModelError` for the first that does not come out as recorded."""
    try:
        golden: dict[str, Any] = read_json(folder / FILE)
        rows, tolerance = golden["rows"], golden["tolerance"]
        raw = [row["raw"] for row in rows]
        inputs = predictor.encode(raw)
        scores = predictor.scores(inputs)
        for at, row in enumerate(rows):
            if inputs[at].tolist() != row["inputs"]:
                raise _differs(folder, at, "its model input differs from the recorded one")
            gap = float(np.abs(scores[at] - np.asarray(row["scores"])).max())
            if not gap <= tolerance:
                raise _differs(
                    folder, at, f"its scores differ from the recorded ones by {gap:.2g}, more than {tolerance:g}"
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / FILE} is missing or damaged: {error}", "restore the version, or train again"
        ) from error
    return len(rows)


def _differs(folder: Path, row: int, how: str) -> ModelError:
    return ModelError(
        f"golden row {row} of {folder} does not come out as it did when the model was registered: {how}",
        "serve with the library versions in the version's lineage.json, or train again",
    )
