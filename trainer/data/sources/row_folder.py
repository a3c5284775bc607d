"""A folder of texts or images: each file is a row, and each class has a subfolder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError
from trainer.data.sources.hive import read_partition
from trainer.data.sources.walk import is_hidden, walk_folder

#: Format of a folder -> file extensions of its rows. An image's content decides how it is decoded, not its extension.
ROW_ENDINGS = {
    "text": (".txt",),
    "images": (
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".webp", ".avif", ".bmp", ".dib",
        ".gif", ".tif", ".tiff",
    ),
}  # fmt: skip


class FolderItem(NamedTuple):
    """One file of the folder that is a row."""

    relative: str
    """Path relative to the folder, with `/`."""
    path: str
    """Path or address."""
    label: str | None
    """Class of the row: the name of its subfolder, or VALUE if all subfolders are `COLUMN=VALUE`; None for a file in
    the folder itself."""
    stamp: str
    """Size and modification time of a remote file; empty for a local one."""


def list_folder_items(folder: str, row_format: str) -> list[FolderItem]:
    """Return the files below a folder that are rows of `row_format`, sorted by relative path.

    Hidden files, files in hidden folders and files with other extensions are not rows. A text file by itself is one row.
    """
    if Path(folder).is_file():
        return [FolderItem(Path(folder).name, folder, None, "")]
    files = [file for file in walk_folder(folder) if is_row(file.relative, row_format)]
    labels = _labels({file.relative.split("/")[0] for file in files if "/" in file.relative})
    return [
        FolderItem(relative, path, labels[relative.split("/")[0]] if "/" in relative else None, stamp)
        for relative, path, stamp, _ in sorted(files)
    ]


def is_row(relative: str, row_format: str) -> bool:
    """Whether a file of a folder is a row of this format."""
    return relative.lower().endswith(ROW_ENDINGS[row_format]) and not is_hidden(relative)


def check_folder_roles(folder: str, columns: Mapping[str, str], role: str) -> None:
    """Raise `DataError` for a role other than `role` (the content of the files) and label (their subfolder)."""
    if "label" in columns and Path(folder).is_file():
        raise DataError(
            f"{folder} is one file of text, and its row has no label",
            "name the folder that holds a subfolder for each class",
        )
    other = next((name for name in columns if name not in (role, "label")), None)
    if other:
        raise DataError(
            f"{folder} is a folder of {role} files: its rows have a {role} and a label, but no {other}",
            f"put the rows into a csv, jsonl or parquet file with a column for the {other}",
        )


def _labels(subfolders: set[str]) -> dict[str, str | None]:
    """Return the class of each subfolder."""
    partitions = {name: read_partition([name]) for name in subfolders}
    columns = {next(iter(partition), "") for partition in partitions.values()}
    if len(columns) == 1 and "" not in columns:
        return {name: next(iter(partition.values())) for name, partition in partitions.items()}
    return {name: name for name in subfolders}
