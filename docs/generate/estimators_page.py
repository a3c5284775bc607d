"""docs/reference/estimators.md: the models for tables and their parameters, from trainer/tasks/estimators."""

from __future__ import annotations

import inspect

from docs.generate.keys import keys_table
from docs.generate.markdown import code, generated_page, one_line, table
from trainer.tasks.estimators.catalog import DEFAULT_KIND, ESTIMATORS, get_estimator_class

_INTRODUCTION = """
`model.kind` chooses the model of a table, and `model.params` sets its parameters. A parameter that the kind does not have
is rejected. [Train on a table](../how-to/tables.md) shows specs.

`params: {max_depth: 4}` is for the kind in `model.kind`. `params: {xgboost: {max_depth: 4}}` is for `xgboost` only, and
other kinds ignore it: with this form, a search over kinds gives each kind its own values.

Nothing is unpickled. skops builds only types that it knows to be harmless or that the kind lists, and the object must be
of the kind's own class. `estimator.json` holds the kind, its parameters and the SHA-256 of the weights, which is checked
before any library reads them.
"""
_LIBRARIES = {"skops": "scikit-learn", "xgboost": "XGBoost", None: "torch"}
_WORKERS = {"none": "no", "xgboost": "yes, by `ray.train.xgboost`", "torch": "yes, by DDP"}


def build_page() -> str:
    """Return the page."""
    rows, parts = [], []
    for kind in ESTIMATORS:
        cls = get_estimator_class(kind)
        default = " (the default)" if kind == DEFAULT_KIND else ""
        rows.append(
            [
                f"[`{kind}`](#{kind}){default}",
                "yes" if cls.learns_classes else "no",
                "yes" if cls.learns_numbers else "no",
                _LIBRARIES[cls.needs],
                code(cls.weights_file),
                _WORKERS.get(cls.backend, cls.backend),
            ]
        )
        params = cls.params_type
        about = one_line(inspect.getdoc(params) or "")
        parts.append(f"## `{kind}`\n\n{about}\n\n" + keys_table(params, "model.params", params.model_json_schema()))
    header = ["kind", "classes", "numbers", "library", "file", "several workers"]
    return generated_page(
        "Models for tables", "trainer/tasks/estimators/", _INTRODUCTION + "\n" + table(header, rows), *parts
    )
