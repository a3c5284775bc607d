"""Cells that hold tags: a JSON list of texts such as `["red", "blue"]`, or tags with a separator such as `red|blue`."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cluster.text import is_blank, is_unicode
from trainer.features.cells import format_cell
from trainer.values.columns import distinct_texts, one_array
from trainer.values.spelling import spell_value
from trainer.values.words import canonical_word

#: The default of `data.tag_separator`.
DEFAULT_SEPARATOR = "|"


class TagCells(NamedTuple):
    """The tags in a column of cells; each distinct cell is read once."""

    tags: list[list[str]]
    """The tags of each distinct cell, in the cell's order; empty if there is a reason."""
    reasons: list[str | None]
    """Why each distinct cell cannot be used, or None."""
    cell_of_row: np.ndarray
    """int64, shape (B,): the index of each row's cell among the distinct ones."""


def split_tags(cell: str | None, separator: str = DEFAULT_SEPARATOR) -> list[str]:
    """Return the tags of one cell in their canonical spelling; an empty cell has none. A cell that begins with `[` is JSON.

    Numbers and true/false in a JSON list become tags. Raises `ValueError` if the JSON is not a list of single values.
    """
    text = (cell or "").strip()
    if not text:
        return []
    if not text.startswith("["):
        return [canonical_word(tag) for tag in text.split(separator)]
    tags = [spell_value(tag) for tag in json.loads(text)]
    if not all(tag is not None and is_unicode(tag) for tag in tags):
        raise ValueError("not all of them are values")
    return [canonical_word(tag) for tag in tags if tag is not None]


def canonical_tags(cell: str | None, separator: str = DEFAULT_SEPARATOR) -> str:
    """Return a cell as a JSON list, with any mistakes left in; a cell that cannot be split is returned unchanged."""
    try:
        return json.dumps(split_tags(cell, separator), ensure_ascii=False)
    except (ValueError, RecursionError):
        return cell or ""


def read_tags(cells: pa.Array | pa.ChunkedArray) -> TagCells:
    """Return the tags of a column of strings; null is an empty cell."""
    values, cell_of_row = distinct_texts(one_array(cells))
    tags_by_cell: list[list[str]] = []
    reasons: list[str | None] = []
    visible: set[str] = set()  # tags that are known to have visible characters: most tags repeat
    for value in values:
        tags, reason = _read_cell(value, visible)
        tags_by_cell.append([] if reason else tags)
        reasons.append(reason)
    return TagCells(tags_by_cell, reasons, cell_of_row)


def _read_cell(cell: str | None, visible: set[str]) -> tuple[list[str], str | None]:
    """Return the tags of a cell, and why it cannot be used or None."""
    try:
        tags = split_tags(cell)
    except (ValueError, RecursionError):
        return [], f"a value that is not a JSON list of texts: {format_cell(cell)}"
    for tag in tags:
        if tag not in visible:
            if is_blank(tag):
                return tags, f"an empty tag: {format_cell(cell)}"
            visible.add(tag)
    if len(set(tags)) < len(tags):
        repeated = next(tag for position, tag in enumerate(tags) if tag in tags[:position])
        return tags, f"a repeated tag: {format_cell(repeated)} in {format_cell(cell)}"
    return tags, None
