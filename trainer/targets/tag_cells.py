"""Cells that hold tags: a JSON list of texts, as `["red", "blue"]`, or tags with a separator between them, as `red|blue`."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cluster.text import is_blank, is_unicode
from trainer.features.cells import distinct, shown

#: What stands between tags where the spec does not say.
SEPARATOR = "|"


class Tagged(NamedTuple):
    """The tags of a column's cells, each different cell read once."""

    tags: list[list[str]]
    """Of each different cell, as they stand there; empty where there is a reason."""
    reasons: list[str | None]
    """Of each different cell: why it cannot be used."""
    at: np.ndarray
    """int64, shape (B,): the place of each row's cell among the different ones."""


def split(cell: str | None, separator: str = SEPARATOR) -> list[str]:
    """Return the tags of one cell, trimmed; none for an empty one. What begins with `[` is JSON.

    Whole numbers and true/false of a JSON list are tags as JSON writes them. Raises `ValueError` for what is no list.
    """
    text = (cell or "").strip()
    if not text:
        return []
    if not text.startswith("["):
        return [tag.strip() for tag in text.split(separator)]
    found = json.loads(text)
    if not all(isinstance(tag, (str, int)) and is_unicode(str(tag)) for tag in found):  # a bool is an int
        raise ValueError("not all of them are texts")
    return [tag.strip() if isinstance(tag, str) else json.dumps(tag) for tag in found]


def canonical(cell: str | None, separator: str = SEPARATOR) -> str:
    """Return a cell as a JSON list, with its mistakes; one that cannot be taken apart comes back as it is."""
    try:
        return json.dumps(split(cell, separator), ensure_ascii=False)
    except (ValueError, RecursionError):
        return cell or ""


def read(cells: pa.Array | pa.ChunkedArray) -> Tagged:
    """Return the tags of a column of strings; null is an empty cell."""
    values, at = distinct(cells)
    tags: list[list[str]] = []
    reasons: list[str | None] = []
    seen: set[str] = set()  # tags known to be visible: most come again and again
    for value in values:
        found, reason = _judged(value, seen)
        tags.append([] if reason else found)
        reasons.append(reason)
    return Tagged(tags, reasons, at)


def _judged(cell: str | None, seen: set[str]) -> tuple[list[str], str | None]:
    """Return the tags of a cell, and what is wrong with it."""
    try:
        tags = split(cell)
    except (ValueError, RecursionError):
        return [], f"no JSON list of texts: {shown(cell)}"
    for tag in tags:
        if tag not in seen:
            if is_blank(tag):
                return tags, f"an empty tag: {shown(cell)}"
            seen.add(tag)
    if len(set(tags)) < len(tags):
        twice = next(tag for place, tag in enumerate(tags) if tag in tags[:place])
        return tags, f"a tag twice: {shown(twice)} in {shown(cell)}"
    return tags, None
