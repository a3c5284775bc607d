"""A folder of texts or images: each file is a row, and each class has a subfolder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError
from trainer.data.sources.remote import is_remote, list_remote_folder

#: Format of a folder -> file extensions of its rows.
ROW_ENDINGS = {
    "text": (".txt",),
    "images": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
}


class FolderItem(NamedTuple):
    """One file of the folder that is a row."""

    relative: str
    """Path relative to the folder, with `/`."""
    path: str
    """Path or address."""
    label: str | None
    """Class of the row: the name of its subfolder; None for a file in the folder itself."""
    stamp: str
    """Size and modification time of a remote file; empty for a local one."""


def list_folder_items(folder: str, row_format: str) -> list[FolderItem]:
    """Return the files below a folder that are rows of `row_format`, sorted by relative path.

    Hidden files, files in hidden folders and files with other extensions are not rows.
    """
    files = list_remote_folder(folder) if is_remote(folder) else _list_local(Path(folder))
    return [
        FolderItem(relative, path, relative.split("/")[0] if "/" in relative else None, stamp)
        for relative, path, stamp in sorted(files)
        if relative.lower().endswith(ROW_ENDINGS[row_format])
        and not any(name.startswith(".") for name in relative.split("/"))
    ]


def detect_folder_format(folder: Path, *, classes: bool) -> str | None:
    """Return the format of a local folder by the files in its subfolders; None if they are not rows.

    Without `classes` (rows to predict), images in the folder itself count too. Raises `DataError` if the folder holds
    rows of more than one format.
    """
    first_file: dict[str, str] = {}
    for relative, path, _ in _list_local(folder):
        for row_format, endings in ROW_ENDINGS.items():
            counts = "/" in relative or (row_format == "images" and not classes)
            if counts and relative.lower().endswith(endings):
                first_file.setdefault(row_format, path)
    if len(first_file) > 1:
        raise DataError(
            f"{folder} holds both texts and images, for example {first_file['text']} and {first_file['images']}",
            f"set `data.format` to the format of the rows ({' or '.join(first_file)}), or remove the other files",
        )
    return next(iter(first_file), None)


def check_holds_rows(folder: str, row_format: str, part: str) -> None:
    """Raise `DataError` for a local folder without a file of `row_format`."""
    if list_folder_items(folder, row_format):
        return
    endings = Counter(Path(relative).suffix or "no extension" for relative, _, _ in _list_local(Path(folder)))
    content = ", ".join(f"{count} with {ending}" for ending, count in endings.most_common(3)) or "no file at all"
    raise DataError(
        f"data.{part}={folder!r} holds no {' or '.join(ROW_ENDINGS[row_format])} file ({content})",
        f"put the files at {Path(folder) / 'CLASS' / f'NAME{ROW_ENDINGS[row_format][0]}'}",
    )


def check_folder_roles(folder: str, columns: Mapping[str, str], role: str) -> None:
    """Raise `DataError` for a role other than `role` (the content of the files) and label (their subfolder)."""
    other = next((name for name in columns if name not in (role, "label")), None)
    if other:
        raise DataError(
            f"{folder} is a folder of {role} files: its rows have a {role} and a label, but no {other}",
            f"put the rows into a csv, jsonl or parquet file with a column for the {other}",
        )


def _list_local(folder: Path, prefix: str = "", above: frozenset[str] = frozenset()) -> Iterator[tuple[str, str, str]]:
    """Yield (relative path, path, "") of all files except those in hidden folders. Links to folders are followed.

    Raises `DataError` for a folder that cannot be read and for a broken link: their rows would be missing.
    """
    real_path = os.path.realpath(folder)
    if real_path in above:  # a link to a folder that contains the link
        return
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}", "check its permissions") from error
    for entry in entries:
        if entry.is_dir():
            if not entry.name.startswith("."):
                yield from _list_local(Path(entry.path), f"{prefix}{entry.name}/", above | {real_path})
        elif entry.is_symlink() and not Path(entry.path).exists() and not entry.name.startswith("."):
            raise DataError(f"{entry.path} is a broken link: its target does not exist", "correct or remove the link")
        else:
            yield f"{prefix}{entry.name}", str(entry.path), ""
