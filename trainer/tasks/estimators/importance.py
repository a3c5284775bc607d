"""Permutation importance: how much each column matters to a fitted estimator, in the same way for every kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.contract.contract import Contract
from trainer.features.categorical import FittedCategorical
from trainer.features.fitted import FittedFeatures
from trainer.targets.base import Target
from trainer.tasks.estimators.base import Estimator, FeatureTable, mean_loss, spread_rows, training_labels

_MAX_ROWS = 2_000
_REPEATS = 5
# Each shuffle costs a forward pass over all rows. With more columns, each is shuffled once, not `_REPEATS` times.
_MANY_COLUMNS = 200
_SEED = 20_240


def permutation_importance(
    target: Target, contract: Contract, model: Estimator, table: FeatureTable, targets: np.ndarray
) -> dict[str, Any]:
    """Return how much the loss of held-out rows grows when a column's cells are shuffled among the rows, as JSON.

    `{figure, value, rows, repeats, columns: [{name, rise, std}]}`, the largest rise first. All outputs of a column are
    shuffled together.
    """
    sample = spread_rows(len(table), _MAX_ROWS)
    table = table.take(sample)
    labels = training_labels(target, contract, targets[sample])

    def loss(rows: FeatureTable) -> float:
        return target.scale_loss(contract.fitted, mean_loss(labels, model.logits(rows)))

    loss_before = loss(table)
    rng = np.random.default_rng(_SEED)
    columns: list[dict[str, Any]] = []
    outputs = _outputs_by_column(FittedFeatures.model_validate(contract.fitted["features"]))
    repeats = _REPEATS if len(outputs) <= _MANY_COLUMNS else 1
    for name, values, ids in outputs:
        rises = []
        for _ in range(repeats):
            order = rng.permutation(len(table))
            shuffled = FeatureTable(table.values.copy(), table.ids.copy(), table.sizes)
            shuffled.values[:, values] = table.values[order][:, values]
            shuffled.ids[:, ids] = table.ids[order][:, ids]
            rises.append(loss(shuffled) - loss_before)
        columns.append({"name": name, "rise": float(np.mean(rises)), "std": float(np.std(rises))})
    columns.sort(key=lambda column: -float(column["rise"]))
    return {
        "figure": target.loss_metric,
        "value": loss_before,
        "rows": len(table),
        "repeats": repeats,
        "columns": columns,
    }


def _outputs_by_column(fitted: FittedFeatures) -> list[tuple[str, slice, slice]]:
    """Return each column's name, the range of its float outputs, and the range of its ids."""
    outputs = []
    value_start = id_start = 0
    for column in fitted.columns:
        n_values = len(column.names)
        n_ids = int(isinstance(column, FittedCategorical) and column.rules.as_ids)
        value_end, id_end = value_start + n_values, id_start + n_ids
        outputs.append((column.name, slice(value_start, value_end), slice(id_start, id_end)))
        value_start, id_start = value_end, id_end
    return outputs
