"""What every part of a spec is built on: a frozen section that refuses unknown keys, and the kinds of its numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """One part of the spec: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


def rising(given: int | tuple[int, int]) -> int | tuple[int, int]:
    """Return a number, or the fewest and the most of a range; raises `ValueError` where these fall."""
    if isinstance(given, tuple) and given[0] > given[1]:
        raise ValueError(f"{list(given)} must rise; put the fewest first")
    return given
