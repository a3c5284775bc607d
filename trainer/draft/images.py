"""Look at some images: how large they are, and whether they are gray."""

from __future__ import annotations

import contextlib
import io
import statistics
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from trainer.data.readers.file_cells import resolve_cell
from trainer.data.readers.read import read_blocks
from trainer.data.sources.remote import is_remote
from trainer.data.sources.row_folder import list_folder_items
from trainer.draft.sample import Sample

_MAX_IMAGES = 60


class ImageFacts(NamedTuple):
    """What some images have in common."""

    size: tuple[int, int] | None = None
    """Median width and height in pixels; None if no image could be read."""
    is_gray: bool = False


def look_at_images(sample: Sample, column: str) -> ImageFacts:
    """Return the facts of some images: local files, spread over all rows, or the bytes of the first rows."""
    from PIL import Image

    sizes, modes = [], set()
    for content in _contents(sample, column):
        # Pillow's formats raise errors of many kinds for bytes that are no image.
        with contextlib.suppress(Exception), Image.open(content) as image:
            sizes.append(image.size)
            modes.add(image.mode)
    if not sizes:
        return ImageFacts()
    width, height = (round(statistics.median(sides)) for sides in zip(*sizes, strict=True))
    return ImageFacts((width, height), modes <= {"L", "1", "LA", "I;16"})


def _contents(sample: Sample, column: str) -> Iterator[Any]:
    """Yield some images, as paths or as bytes."""
    if not sample.is_folder and column not in sample.rows.column_names:
        first = sample.files[0]
        for block in islice(read_blocks(first, {"image": column}, frozenset(), frozenset({"image"})), 1):
            yield from (io.BytesIO(raw) for raw in block["image"].to_pylist()[:_MAX_IMAGES] if raw)
        return
    paths = list(_paths(sample, column))
    yield from islice(paths[:: max(1, len(paths) // _MAX_IMAGES)], _MAX_IMAGES)


def _paths(sample: Sample, column: str) -> Iterator[str]:
    if sample.is_folder:
        for file in sample.files:
            yield from (item.path for item in list_folder_items(file.path, file.format) if not is_remote(item.path))
        return
    cells = sample.rows[column].drop_null().to_pylist()
    yield from (resolve_cell(cell, sample.files[0].path) for cell in cells if not is_remote(cell))
