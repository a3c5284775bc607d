"""Look at some images: how large they are, and whether they are gray."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from trainer.data.readers.file_cells import resolve_cell
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
    """Return the facts of some local images, spread over all files."""
    from PIL import Image, UnidentifiedImageError

    paths = list(_image_paths(sample, column))
    sizes, modes = [], set()
    for path in islice(paths[:: max(1, len(paths) // _MAX_IMAGES)], _MAX_IMAGES):
        try:
            with Image.open(path) as image:
                sizes.append(image.size)
                modes.add(image.mode)
        except (OSError, UnidentifiedImageError, ValueError):
            continue
    if not sizes:
        return ImageFacts()
    width, height = (round(statistics.median(sides)) for sides in zip(*sizes, strict=True))
    return ImageFacts((width, height), modes <= {"L", "1", "LA", "I;16"})


def _image_paths(sample: Sample, column: str) -> Iterator[str]:
    """Yield the local paths of the images; none for images inside Parquet files."""
    if sample.is_folder:
        for file in sample.files:
            yield from (item.path for item in list_folder_items(file.path, file.format) if Path(item.path).is_file())
        return
    if column in sample.rows.column_names:
        cells: list[Any] = sample.rows[column].drop_null().to_pylist()
        yield from (resolve_cell(cell, sample.files[0].path) for cell in cells if not is_remote(cell))
