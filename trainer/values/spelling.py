"""Spell one typed value as the text that a csv file would hold."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Mapping, Set
from typing import Any

# A decimal with more digits before or after its point is spelled with an exponent.
_MAX_DIGITS = 400


class NotOneValue(ValueError):
    """A list, an object, or bytes that are not UTF-8: not one value. The message says which."""


def spell_value(value: Any) -> str | None:
    """Return a value as text, or None if it is missing: None, NaN, NaT, NA.

    Texts are returned unchanged. Raises `NotOneValue` for a list, an object, and bytes that are not UTF-8.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return None if value != value else _without_point_zero(repr(float(value)))
    if isinstance(value, decimal.Decimal):
        return _spell_decimal(value)
    if isinstance(value, dt.date):  # a datetime is a date
        return _spell_date(value)
    if isinstance(value, dt.time):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _decode(bytes(value))
    return _spell_other(value)


def _spell_decimal(value: decimal.Decimal) -> str | None:
    if value.is_nan():
        return None
    is_long = not value.is_finite() or abs(value.adjusted()) > _MAX_DIGITS
    return str(value) if is_long else format(value, "f")


def _spell_date(value: dt.date) -> str | None:
    if value != value:  # pandas' NaT is a datetime
        return None
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.timezone.utc).isoformat().replace("+00:00", "Z")
    return value.isoformat()


def _decode(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise NotOneValue("bytes that are not UTF-8") from None


def _spell_other(value: Any) -> str | None:
    """Return a value of another library's type as text."""
    if type(value).__name__ == "NAType":  # pandas' NA, which cannot be compared
        return None
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is not None and getattr(value, "ndim", 0) == 0:  # a number of numpy
        # float32 has fewer digits than float64: 0.1 of a float32 is 0.1, not 0.10000000149.
        return spell_value(float(str(value)) if kind == "f" else value.item())
    if isinstance(value, Mapping):
        raise NotOneValue("an object")
    if isinstance(value, (list, tuple, Set)) or kind is not None:
        raise NotOneValue("a list")
    return str(value)


def _without_point_zero(number: str) -> str:
    return "0" if number == "-0.0" else number.removesuffix(".0")
