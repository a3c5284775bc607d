"""Cross-validation: which fold each row is in, and the rows of each fold encoded by what its own training rows teach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from trainer.contract.row_hash import content_keys, position
from trainer.data.prepared import Prepared
from trainer.features.fit import fit_tables
from trainer.features.fitted import Fitted, encode, sizes
from trainer.tasks.estimators.base import Table
from trainer.tasks.roles import FEATURE


class Fold(NamedTuple):
    """One fold's rows, by their place among the training and then the validation rows."""

    learn: np.ndarray
    judge: np.ndarray
    table: Table
    """All rows, encoded by features that were fitted on those of `learn` alone."""


def assign(keys: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row, int64 of shape (B,): equal keys (uint64) share one, and each group is dealt out evenly.

    Where equal keys are in several groups, the group of the first counts. It depends on the rows' content and the seed, not
    on their order. Raises `DataError` for fewer different rows than folds.
    """
    distinct, first, back = np.unique(keys, return_index=True, return_inverse=True)
    if len(distinct) < n_folds:
        raise DataError(
            f"train.folds={n_folds}, but there are {len(distinct)} different rows to train on", "use fewer folds"
        )
    order = np.lexsort((position(distinct, seed, "folds"), groups[first]))
    found = np.empty(len(distinct), np.int64)
    found[order] = np.arange(len(distinct)) % n_folds
    return found[back]


def folds(prepared: Prepared, codes: np.ndarray, n_folds: int, seed: int) -> Iterator[Fold]:
    """Yield the folds of the training and validation rows; `codes` are classes to be dealt out evenly, shape (B,).

    Columns are fitted anew for each fold, so that the rows it is judged by teach nothing. Rows with a value that serving
    would refuse then (a category unseen in the fold's training rows) judge nothing.
    """
    raw = raw_features(prepared)
    rows = raw.to_pylist()
    keys = content_keys([repr(list(row.values())) for row in rows])
    of_row = assign(keys, codes, n_folds, seed)
    rules = Fitted.model_validate(prepared.contract.fitted["features"]).rules
    for fold in range(n_folds):
        learn, judge = np.flatnonzero(of_row != fold), np.flatnonzero(of_row == fold)
        fitted = fit_tables([raw.take(pa.array(learn))], rules).fitted
        encoded = encode(fitted, raw)
        usable = np.array([encoded.reasons[row] is None for row in judge], bool)
        yield Fold(
            learn, judge[usable], Table(encoded.values, encoded.ids.astype(np.int64), tuple(sizes(fitted).values()))
        )


def raw_features(prepared: Prepared) -> pa.Table:
    """Return the raw cells of the training and then the validation rows, by the user's names of the columns."""
    parts = [prepared.part("train"), prepared.part("validation")]
    columns = {role: name for role, name in prepared.contract.columns.items() if role.startswith(FEATURE)}
    return pa.table(
        {
            name: pa.array([cell for part in parts for cell in part.raw(role)], pa.string())
            for role, name in columns.items()
        }
    )
