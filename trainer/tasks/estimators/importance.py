"""How much each column matters to a fitted estimator: permutation importance, the same measure for every kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.contract.contract import Contract
from trainer.features.categorical import FittedCategorical
from trainer.features.fitted import Fitted
from trainer.targets.base import Target
from trainer.tasks.estimators.base import Estimator, Table, goal_of, mean_loss, spread

_MOST_ROWS = 2_000
_REPEATS = 5
# A table with more columns is shuffled once for each: a forward pass of all rows every time.
_MANY_COLUMNS = 200
_SEED = 20_240


def importance(
    target: Target, contract: Contract, model: Estimator, table: Table, targets: np.ndarray
) -> dict[str, Any]:
    """Return by how much the loss of held-out rows grows when a column's cells are shuffled among them, as JSON.

    `{figure, value, rows, repeats, columns: [{name, rise, std}]}`, the largest rise first; all outputs of a column move together.
    """
    some = spread(len(table), _MOST_ROWS)
    table = table.take(some)
    goal = goal_of(target, contract, targets[some])

    def loss(rows: Table) -> float:
        return target.in_units(contract.fitted, mean_loss(goal, model.logits(rows)))

    before = loss(table)
    rng = np.random.default_rng(_SEED)
    columns: list[dict[str, Any]] = []
    places = _places(Fitted.model_validate(contract.fitted["features"]))
    repeats = _REPEATS if len(places) <= _MANY_COLUMNS else 1
    for name, values, ids in places:
        rises = []
        for _ in range(repeats):
            order = rng.permutation(len(table))
            shuffled = Table(table.values.copy(), table.ids.copy(), table.sizes)
            shuffled.values[:, values] = table.values[order][:, values]
            shuffled.ids[:, ids] = table.ids[order][:, ids]
            rises.append(loss(shuffled) - before)
        columns.append({"name": name, "rise": float(np.mean(rises)), "std": float(np.std(rises))})
    columns.sort(key=lambda column: -float(column["rise"]))
    return {"figure": target.loss, "value": before, "rows": len(table), "repeats": repeats, "columns": columns}


def _places(fitted: Fitted) -> list[tuple[str, slice, slice]]:
    """Return for each column its float outputs and its column of ids."""
    found = []
    at = id_at = 0
    for column in fitted.columns:
        as_id = isinstance(column, FittedCategorical) and column.rules.as_ids
        width, ids = len(column.names), int(as_id)
        found.append((column.name, slice(at, at + width), slice(id_at, id_at + ids)))
        at, id_at = at + width, id_at + ids
    return found
