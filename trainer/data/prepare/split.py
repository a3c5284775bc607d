"""Which rows are held out: a pure function of each row's own content (or group, or time) and the seed.

No other row has a part in it, so adding rows moves none, and a row's place in its file does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from cluster.errors import SpecError
from trainer.contract.row_hash import position
from trainer.data.parts import TEST, TRAIN, VALIDATION
from trainer.spec.data import Split

_YEAR = re.compile(r"\d{4}-?")


#: A time that no row reaches.
NEVER = np.iinfo(np.int64).max


#: Classes with fewer rows are not seen to being in every part.
SMALLEST_CLASS = 5


def by_hash(keys: np.ndarray, *, validation: float, test: float, seed: int) -> np.ndarray:
    """Return the part (0 train, 1 validation, 2 test) of each key, int8, shape (rows,): the lowest share of all hashes is
    the test part, the next the validation part. Equal keys share a part."""
    place = position(keys, seed)
    return np.where(place < test, TEST, np.where(place < test + validation, VALIDATION, TRAIN)).astype(np.int8)


def by_time(times: np.ndarray, validation_from: int, test_from: int) -> np.ndarray:
    """Return the part of each time: the newest rows are the test part, those before them the validation part."""
    return np.where(times >= test_from, TEST, np.where(times >= validation_from, VALIDATION, TRAIN)).astype(np.int8)


def of_training_files(order: np.ndarray, how: Split, file_parts: Iterable[str]) -> np.ndarray:
    """Return the part of each row of the training files by what the split goes by (key, group or time), int8.

    Nothing is held out for a part that has files of its own. Shares of a time need all rows: see `trainer.data.prepare.judge`.
    """
    validation, test = shares(how, file_parts)
    if how.by != "time":
        return by_hash(order, validation=validation, test=test, seed=how.seed)
    assert how.validation_from and how.test_from
    return by_time(
        order,
        moment(how.validation_from) if validation else NEVER,
        moment(how.test_from) if test else NEVER,
    )


def shares(how: Split, file_parts: Iterable[str]) -> tuple[float, float]:
    """Return the shares of validation and test to hold out; nothing of a part that has files of its own."""
    given = set(file_parts)
    return 0.0 if "validation" in given else how.validation, 0.0 if "test" in given else how.test


def times(texts: Sequence[str | None]) -> pa.Array:
    """Return ISO 8601 times as int64 microseconds since 1970 in UTC, null where a text is none; without a zone it is UTC."""
    import pandas as pd

    # pandas would also take `now` and `today`, which are another time in each run.
    dated = [text if text and _YEAR.match(text) else None for text in texts]
    found = pd.to_datetime(pd.Series(dated, dtype=object), utc=True, format="ISO8601", errors="coerce")
    return pa.array(found.dt.as_unit("us")).cast(pa.timestamp("us", "UTC")).cast(pa.int64())


def moment(text: str) -> int:
    """Return one ISO 8601 time of the spec as `times` does. Raises `SpecError` if it is none."""
    found = times([text])[0].as_py()
    if found is None:
        raise SpecError(f"data.split: {text!r} is no ISO 8601 time", "write it as 2026-03-01 or 2026-03-01T12:00:00Z")
    return int(found)


def lend(counts_CP: np.ndarray, validation: float, test: float) -> list[tuple[int, int, int]]:
    """Return (class, from part, to part) for each row that a class must lend, by its counts (classes, 3 parts).

    Every class keeps a row to learn from, and one of `SMALLEST_CLASS` rows or more has one in each held-out part.
    """
    moves = []
    wanted = [(TEST, test), (VALIDATION, validation)]
    for label, counts in enumerate(np.array(counts_CP)):
        total = int(counts.sum())
        for part, share in wanted:
            if share > 0 and total >= SMALLEST_CLASS and counts[part] == 0 and counts[TRAIN] > 1:
                moves.append((label, TRAIN, part))
                counts[part] += 1
                counts[TRAIN] -= 1
        if total and counts[TRAIN] == 0:
            giver = int(counts.argmax())
            moves.append((label, giver, TRAIN))
    return moves
