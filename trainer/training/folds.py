"""Cross-validation: the assignment of rows to folds, and features fitted on each fold's own training rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from trainer.contract.row_hash import hash_contents, hash_position
from trainer.data.prepared import Prepared
from trainer.features.fit import fit_tables
from trainer.features.fitted import FittedFeatures, embedding_sizes, encode_table
from trainer.spec.features import FeatureSpec
from trainer.tasks.estimators.base import FeatureTable
from trainer.tasks.roles import FEATURE


class Fold(NamedTuple):
    """One fold. `train` and `validation` index the table of all training rows followed by all validation rows."""

    train: np.ndarray
    validation: np.ndarray
    table: FeatureTable
    """All rows, encoded by features that were fitted on the rows of `train` only."""
    left_out: dict[str, str]
    """Column -> why the rows of `train` cannot fit it. The table is without these columns."""


def assign_folds(keys: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row, int64 of shape (B,).

    Rows with equal `keys` (uint64) share a fold, and all folds have equal shares of each group.

    If rows with equal keys are in several groups, the group of the first row counts. The result depends on the content
    of the rows and the seed, not on the order of the rows. Raises `DataError` for fewer different rows than folds.
    """
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(distinct) < n_folds:
        raise DataError(
            f"train.folds={n_folds} needs at least {n_folds} different rows to train on, not {len(distinct)}",
            "lower `train.folds`, or give more rows",
        )
    order = np.lexsort((hash_position(distinct, seed, "folds"), groups[first]))
    fold_of_key = np.empty(len(distinct), np.int64)
    fold_of_key[order] = np.arange(len(distinct)) % n_folds
    return fold_of_key[inverse]


def iter_folds(prepared: Prepared, codes: np.ndarray, n_folds: int, seed: int) -> Iterator[Fold]:
    """Yield the folds of the training and validation rows.

    Folds have equal shares of each class in `codes`, shape (B,).

    Features are fitted again for each fold, so that its validation rows do not influence them. Rows that serving would
    then reject (for example a category that the fold's training rows do not have) are left out of the validation rows,
    and columns that the training rows cannot fit (for example one without any value there) are left out of the fold.
    """
    raw = read_raw_features(prepared)
    rows = raw.to_pylist()
    keys = hash_contents([repr(list(row.values())) for row in rows])
    fold_of_row = assign_folds(keys, codes, n_folds, seed)
    rules = FittedFeatures.model_validate(prepared.contract.fitted["features"]).rules
    for fold in range(n_folds):
        train, validation = np.flatnonzero(fold_of_row != fold), np.flatnonzero(fold_of_row == fold)
        fitted, left_out = _fit_possible(raw.take(pa.array(train)), rules)
        encoded = encode_table(fitted, raw)
        usable = np.array([encoded.reasons[row] is None for row in validation], bool)
        table = FeatureTable(encoded.values, encoded.ids.astype(np.int64), tuple(embedding_sizes(fitted).values()))
        yield Fold(train, validation[usable], table, left_out)


def _fit_possible(rows: pa.Table, rules: Mapping[str, FeatureSpec]) -> tuple[FittedFeatures, dict[str, str]]:
    """Return the columns that `rows` can fit, and why the others cannot be. Raises `DataError` if none can be."""
    try:
        return fit_tables([rows], rules).fitted, {}
    except DataError as error:
        first = error
    left_out = {}
    for name, rule in rules.items():
        try:
            fit_tables([rows], {name: rule})
        except DataError as error:
            left_out[name] = error.problem
    possible = {name: rule for name, rule in rules.items() if name not in left_out}
    if not possible:
        raise first
    return fit_tables([rows], possible).fitted, left_out


def read_raw_features(prepared: Prepared) -> pa.Table:
    """Return the raw cells of the training rows followed by the validation rows, with the user's column names."""
    parts = [prepared.part("train"), prepared.part("validation")]
    columns = {role: name for role, name in prepared.contract.columns.items() if role.startswith(FEATURE)}
    return pa.table(
        {
            name: pa.array([cell for part in parts for cell in part.raw(role)], pa.string())
            for role, name in columns.items()
        }
    )
