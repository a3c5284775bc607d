"""Spell one typed value as the text that a csv file would hold."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Iterable, Mapping, Set
from typing import Any

from cluster.text import is_unicode

# A decimal with more digits before or after its point is spelled with an exponent.
_MAX_DIGITS = 400
#: The message of `NotOneValue` for bytes that are no text.
NOT_UTF8 = "bytes that are not UTF-8"


class NotOneValue(ValueError):
    """Something else than a single value that can be a text. The message says what, for example "a list"."""


def spell_value(value: Any, decimal_sign: str = ".") -> str | None:
    """Return a value as text, or None if it is missing: None, NaN, NaT, NA.

    Texts are returned unchanged; numbers get the `decimal_sign` that the texts of their column have. Raises
    `NotOneValue` for a list, an object, bytes that are not UTF-8, and a text that is not Unicode.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if not (value.isascii() or is_unicode(value)):
            raise NotOneValue("a text that is not Unicode")
        return value
    text = _spell_typed(value)
    return text if text is None or decimal_sign == "." else text.replace(".", decimal_sign)


def _spell_typed(value: Any) -> str | None:
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
        raise NotOneValue(NOT_UTF8) from None


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


def spell_list(values: Iterable[Any]) -> str:
    """Return a list of values as JSON, each item spelled as a text and null where one is missing.

    Raises `NotOneValue` if an item is itself a list or an object.
    """
    return json.dumps([spell_value(value) for value in values], ensure_ascii=False)
