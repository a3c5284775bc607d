"""The base class of every section of a spec, and the number types and patterns that several sections share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]

#: A model's name in the registry: it becomes a folder and part of a URL.
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
#: `module:function` of the user's own code.
FUNCTION_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class SpecSection(BaseModel):
    """One section of the spec. It is frozen and refuses unknown keys; the docstring of a field is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


def check_range(value: int | tuple[int, int]) -> int | tuple[int, int]:
    """Return a number or a range unchanged. Raises `ValueError` if the range's first number is the larger one."""
    if isinstance(value, tuple) and value[0] > value[1]:
        raise ValueError(f"{list(value)} must rise; put the smaller number first")
    return value


def range_ends(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return the lower and the upper end of a range; a single number is both."""
    return (value, value) if isinstance(value, int) else value


#: An integer of at least 1, or the two ends of a range: `2` or `[1, 4]`.
IntRange = Annotated[Positive | tuple[Positive, Positive], AfterValidator(check_range)]
#: Like `IntRange`, but the lower end of a range may be 0: `[0, 4]`.
IntRangeFromZero = Annotated[Positive | tuple[NonNegative, Positive], AfterValidator(check_range)]


#: The value of a key that raymill chooses itself, once it knows the rows and the model.
AUTO: Literal["auto"] = "auto"


def _auto_tag(value: Any) -> str:
    """Return the branch that reads a value, so that an error names one rule and not those of all branches."""
    return "<auto>" if value == AUTO else "<number>"


def _auto_or_none_tag(value: Any) -> str:
    return "<none>" if value is None else _auto_tag(value)


_Auto = Annotated[Literal["auto"], Tag("<auto>")]
#: An integer of at least 1, the two ends of a range, or `auto`.
IntRangeOrAuto = Annotated[Annotated[IntRange, Tag("<number>")] | _Auto, Discriminator(_auto_tag)]
#: A positive integer, or `auto`.
PositiveOrAuto = Annotated[Annotated[Positive, Tag("<number>")] | _Auto, Discriminator(_auto_tag)]
#: A share of at least 0 and below 1, or `auto`.
FractionOrAuto = Annotated[Annotated[Fraction, Tag("<number>")] | _Auto, Discriminator(_auto_tag)]
#: A learning rate, above 0 and at most 1, or `auto`.
RateOrAuto = Annotated[Annotated[float, Field(gt=0.0, le=1.0), Tag("<number>")] | _Auto, Discriminator(_auto_tag)]
#: A positive integer, `auto`, or nothing.
PositiveOrAutoOrNone = Annotated[
    Annotated[Positive, Tag("<number>")] | _Auto | Annotated[None, Tag("<none>")], Discriminator(_auto_or_none_tag)
]
