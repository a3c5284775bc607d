"""One term of a memory or disk estimate: its formula, the formula with values put in, and the result in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Term(NamedTuple):
    """One term of a sum."""

    name: str
    """What the bytes hold, for example `gradients`."""
    formula: str
    """The formula in words, for example `4 bytes x trained weights`."""
    values: str
    """The formula with values, for example `4 x 22,713,216`."""
    bytes: int
    is_base: bool = False
    """Whether a process needs it whatever its model and rows are."""
    is_bound: bool = False
    """Whether it is an upper bound, because the rows are not known yet."""


class Estimate(NamedTuple):
    """A sum of terms."""

    terms: tuple[Term, ...] = ()
    unknown: str = ""
    """Why the sum is not complete, as a sentence; empty if it is."""

    @property
    def bytes(self) -> int:
        """The sum in bytes."""
        return sum(term.bytes for term in self.terms)

    @property
    def least_bytes(self) -> int:
        """The sum of the terms that are no upper bounds, in bytes."""
        return sum(term.bytes for term in self.terms if not term.is_bound)

    @property
    def is_bound(self) -> bool:
        """Whether a term is an upper bound."""
        return any(term.is_bound for term in self.terms)


def times(name: str, formula: str, *factors: float, is_base: bool = False, is_bound: bool = False) -> Term:
    """Return the term of a product. `formula` names the factors in their order."""
    product = 1.0
    for factor in factors:
        product *= factor
    values = " x ".join(f"{factor:,.0f}" if float(factor).is_integer() else f"{factor:,.2f}" for factor in factors)
    return Term(name, formula, values, round(product), is_base, is_bound)


def without_empty(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Return the terms that are not zero."""
    return tuple(term for term in terms if term.bytes)
