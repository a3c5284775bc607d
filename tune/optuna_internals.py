"""Every private name of Optuna that raymill uses, one small function each.

A new release of Optuna may change them without notice. The comments say why each is used and what would replace it.
tests/unit/test_optuna_internals.py has one test for each.
"""

from __future__ import annotations

from typing import Any


def contains_value(distribution: Any, value: float) -> bool:
    """Return whether a value lies in a distribution: within its bounds, and on its steps."""
    # Why: a point of the spec or of an earlier search may lie outside the space, and `add_trial` rejects it.
    # Replaced by: a public `contains` of Optuna's distributions, or bounds and step compared here.
    return bool(distribution._contains(value))
