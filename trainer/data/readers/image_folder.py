"""Rows of a folder of images: one file a row, its class the folder's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from trainer.data.readers.blocks import BLOCK_ROWS, to_block
from trainer.data.sources import row_folder as source_folder


def read_image_folder(folder: str, columns: dict[str, str], loose: frozenset[str]) -> Iterator[pa.Table]:
    """Yield the rows in the order of their files' names; the column `image` holds their paths.

    A folder has no columns of its own, so the names in `columns` do not matter. Raises `DataError` for a role other than
    image and label.
    """
    source_folder.check_folder_roles(folder, columns, "image")
    found = source_folder.list_folder_items(folder, "images")
    for start in range(0, len(found), BLOCK_ROWS):
        items = found[start : start + BLOCK_ROWS]
        cells: dict[str, list[Any]] = {"image": [item.path for item in items], "label": [item.label for item in items]}
        yield to_block(range(start + 1, start + len(items) + 1), {role: cells[role] for role in columns}, {}, loose)
