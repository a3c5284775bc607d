"""The memory of fitting an estimator: rows x columns x bytes of each copy that its code and its library make."""

from __future__ import annotations

from typing import NamedTuple

from trainer.planning.row_facts import RowFacts
from trainer.planning.term import Estimate, Term, times, without_empty
from trainer.spec.run import RunSpec
from trainer.tasks.estimators.catalog import DEFAULT_KIND

#: Python with numpy, scikit-learn and xgboost: the resident memory of a worker before it has rows.
TABLE_LIBRARIES = 280_000_000
# Measured with `mlp`, which makes no copies of its own: 28,000 and 100,000 rows of 100 columns.
_OWN_BYTES = 22
# Measured with all kinds: golden rows, metrics and what their libraries load.
_CHECKS = 24_000_000
# Bytes of a node of scikit-learn's trees, and of each of its classes.
_NODE, _NODE_CLASS = 64, 8


class _Copy(NamedTuple):
    """One copy of the table."""

    what: str
    bytes_each: int
    """Bytes for each row and column."""


#: Kind -> the copies that exist at the peak, besides raymill's own. The views of rows are gone when a model is fitted, so one
#: copy of 4 bytes has room where they were, and is not counted.
_COPIES = {
    "gradient_boosting": [
        _Copy("codes, as scikit-learn takes them", 4),
        _Copy("scikit-learn's numbers in double precision", 8),
        _Copy("bins", 1),
    ],
    "random_forest": [],
    "xgboost": [
        _Copy("codes, while xgboost reads them", 4),
        _Copy("xgboost's entries of value and column", 8),
        _Copy("xgboost's sorted columns and bins (measured)", 18),
    ],
    "logistic_regression": [],
    "linear_regression": [_Copy("scikit-learn's centered copy", 4)],
    "mlp": [],
}


def table_memory(spec: RunSpec, facts: RowFacts) -> Estimate:
    """Return the peak memory of a worker that fits `model.kind`; its rows are in memory at once."""
    libraries = Term(
        "Python, numpy and scikit-learn", "measured before rows are read", "", TABLE_LIBRARIES, is_base=True
    )
    if facts.rows is None:
        return Estimate((libraries,), "the rows are not prepared yet, and the memory of a table grows with them")
    kind = spec.model.kind or DEFAULT_KIND
    rows, columns = facts.rows + facts.validation_rows, facts.columns + facts.id_columns
    own = [_Copy("prepared rows: mapped files, views of rows, one matrix (measured)", _OWN_BYTES)]
    terms = [
        times(copy.what, "rows x columns x bytes", rows, columns, copy.bytes_each)
        for copy in [*own, *_COPIES.get(kind, [])]
    ]
    terms.insert(0, Term("checks and metrics", "about 24 MB, measured", "", _CHECKS))
    terms.append(times("ids of categories", "rows x columns of categories x 8", rows, facts.id_columns, 8))
    if facts.id_columns:
        terms.append(times("values apart from ids", "rows x columns of numbers x 4", rows, facts.columns, 4))
    if kind == "random_forest":
        terms.append(_trees(spec, facts))
    if spec.train.folds:
        terms.append(
            times("rows of the folds", "(folds - 1) x rows x columns x 4", spec.train.folds - 1, rows, columns, 4)
        )
    return Estimate((libraries, *without_empty(terms)))


def _trees(spec: RunSpec, facts: RowFacts) -> Term:
    """Return the term of a forest's trees, at most one leaf for each row of a tree's sample."""
    trees = int(spec.model.params.get("n_estimators", 200))
    nodes = 2 * 0.632 * (facts.rows or 0)
    depth = spec.model.params.get("max_depth")
    nodes = min(nodes, 2.0 ** (int(depth) + 1)) if depth else nodes
    each = _NODE + _NODE_CLASS * facts.outputs
    return times("trees, at most", "trees x 2 x 0.632 rows x bytes of a node", trees, round(nodes), each, is_bound=True)
