"""Read the rows of a folder of images: each file is a row, and its subfolder names its class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from trainer.data.readers.blocks import BLOCK_ROWS, to_block
from trainer.data.sources.row_folder import check_folder_roles, list_folder_items


def read_image_folder(folder: str, columns: dict[str, str], loose: frozenset[str]) -> Iterator[pa.Table]:
    """Yield the rows, sorted by path. The column `image` holds the paths of the files.

    A folder has no columns of its own, so the names in `columns` do not matter. Raises `DataError` for a role other
    than image and label.
    """
    check_folder_roles(folder, columns, "image")
    items = list_folder_items(folder, "images")
    for start in range(0, len(items), BLOCK_ROWS):
        block = items[start : start + BLOCK_ROWS]
        cells: dict[str, list[Any]] = {"image": [item.path for item in block], "label": [item.label for item in block]}
        yield to_block(range(start + 1, start + len(block) + 1), {role: cells[role] for role in columns}, {}, loose)
