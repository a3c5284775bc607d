"""Read numbers from text."""

from __future__ import annotations

import decimal
import re

#: A decimal point and an exponent are allowed; thousands separators, commas, underscores and hexadecimal are not.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

# Programs write whole numbers of a column of floats as 3.0, and very large and small numbers as 1e+16 or 1.0E7. A text
# such as 2e3, 5E-3 or 3.10 is left as it is: people write part numbers and versions like that.
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]0+")
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)\.0+")
_SCIENTIFIC = re.compile(r"-?[0-9](?:(?:\.[0-9]+)?e[+-]|\.[0-9]+E-?)[0-9]{1,3}")


def parse_number(text: str) -> float | None:
    """Return the number in a text, to the nearest float64, infinite if it is too large; None if it is no number."""
    text = text.strip()
    return float(text) if NUMBER.fullmatch(text) else None


def plain_number(text: str) -> str | None:
    """Return the digits of a number that a program wrote as a float, for example 3 for 3.0; None for another text."""
    if _WHOLE.fullmatch(text):
        digits = text.partition(".")[0]
        return "0" if digits == "-0" else digits
    if _SCIENTIFIC.fullmatch(text):
        number = decimal.Decimal(text)
        digits = format(number, "f")
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if text == "-0" else None


def shorter_decimal(text: str) -> str:
    """Return a decimal without the zeros at its end, as a float has it: 12.5 for 12.50; another text unchanged."""
    return text.rstrip("0") if _DECIMAL.fullmatch(text) else text
