"""Recognize numbers that are written with signs: "1,234", "$3.50", "12 kg", "45%", "1.234,5 EUR"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from trainer.features.cells import BadCell
from trainer.features.numeric import make_number_parser
from trainer.spec.features import MISSING_WORDS, NumericSpec

# Of the cells, at least this share must be numbers in one form; the others become words for "missing".
_MIN_SHARE = 0.9
_MAX_WORDS = 5
# If few of the first cells are like a number, the others are not looked at.
_HEAD, _LIKE_NUMBER = 200, re.compile(r"[^\d]{0,6}\d[\d.,' \u00a0\u202f]*(?:[eE][+-]?\d+)?\D{0,12}$")
_AFFIX = re.compile(r"^([^\d.,+-]*[+-]?[^\d.,+-]*)([\d.,' \u00a0\u202f]*\d)(\D*)$")
_DECIMAL_COMMA = re.compile(r"\d,\d{1,2}$|\d,\d{4,}$|\.\d{3},\d+$")
# Digits that begin with 0 are postal codes, phone numbers and the like: 01067 is not 1067.
_CODE = re.compile(r"\D*0\d+")
# Letters before a number are a currency; other letters, as in A12 or Room 12, make a name of it.
_CURRENCIES = {
    *("usd", "us", "eur", "gbp", "chf", "jpy", "cny", "inr", "rs", "aud", "cad", "nzd", "sek", "nok", "dkk", "pln"),
    *("czk", "huf", "brl", "mxn", "zar", "sgd", "hkd", "krw", "try", "r", "kr"),
}
_MAX_UNIT_CHARS = 12
_ORDINALS = {"st", "nd", "rd", "th"}


class NumberForm(NamedTuple):
    """How the numbers of a column are written."""

    rules: dict[str, Any]
    """Keys of `NumericSpec` that differ from their defaults; empty for plain numbers."""
    numbers: dict[str, float]
    """Cell -> its number."""
    words: list[str]
    """Cells that are not numbers: they are read as missing."""


def read_number_form(cells: Mapping[str, int]) -> NumberForm | None:
    """Return how the cells (cell -> rows) write numbers, or None if they are not numbers of one form and unit."""
    if any(_CODE.fullmatch(cell.strip()) for cell in cells):
        return None
    head = list(islice(cells, _HEAD))
    if sum(bool(_LIKE_NUMBER.match(cell)) for cell in head) < _MIN_SHARE / 2 * len(head):
        return None
    for rules in _candidate_rules(cells):
        parse = make_number_parser(NumericSpec(**rules))
        parsed = {cell: parse(cell) for cell in cells}
        numbers = {cell: value for cell, value in parsed.items() if not isinstance(value, BadCell)}
        words = [cell for cell in cells if cell not in numbers]
        n_good, n_all = sum(cells[cell] for cell in numbers), sum(cells.values())
        if any(letter.isdigit() for word in words for letter in word):  # "300 g" is not a missing value
            continue
        if numbers and len(words) <= _MAX_WORDS and n_good >= _MIN_SHARE * n_all:
            if words:
                rules = {**rules, "missing_words": [*MISSING_WORDS, *words]}
            return NumberForm(rules, numbers, words)
    return None


def _candidate_rules(cells: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the rules to try: plain numbers, then without the signs around the digits."""
    yield {}
    matches = [match for match in map(_AFFIX.match, (cell.strip() for cell in cells)) if match]
    affixes = _common_affixes(matches)
    if affixes is None or len(matches) < _MIN_SHARE * len(cells):
        return
    bodies = [match[2] for match in matches]
    spaces = [sign for sign in ("'", "\u00a0", "\u202f", " ") if any(sign in body for body in bodies)]
    if any(_DECIMAL_COMMA.search(body) for body in bodies):
        points = ["."] if any("." in body for body in bodies) else []
        removed = [*affixes, *points, *spaces]
        yield {**({"remove": removed} if removed else {}), "decimal_sign": ","}
        return
    commas = [","] if any("," in body for body in bodies) else []
    if affixes or commas or spaces:
        yield {"remove": [*affixes, *commas, *spaces]}


def _common_affixes(matches: list[re.Match[str]]) -> list[str] | None:
    """Return the texts around the digits, the most frequent first; None if they are not one unit or currency."""
    affixes: Counter[str] = Counter()
    for match in matches:
        before, after = match[1].strip(" +-\u00a0"), match[3].strip()
        letters = "".join(letter for letter in before.lower() if letter.isalpha())
        is_ordinal = after.lower().partition(" ")[0] in _ORDINALS
        if (letters and letters not in _CURRENCIES) or len(after) > _MAX_UNIT_CHARS or is_ordinal:
            return None
        affixes.update(affix for affix in dict.fromkeys((before, after)) if affix)
    units = [affix for affix in affixes if any(letter.isalpha() for letter in affix)]
    return [affix for affix, _ in affixes.most_common()] if len(units) <= 1 else None  # not 12 kg and 300 g
