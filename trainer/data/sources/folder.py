"""A folder whose files are the rows, texts or images: one folder for each class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError
from trainer.data.sources import remote as source_remote

#: Format -> endings of the files that are its rows.
ENDINGS = {
    "text": (".txt",),
    "images": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
}


class Item(NamedTuple):
    """One file of the folder that is a row."""

    relative: str
    """Path below the folder, with `/`."""
    path: str
    """Path or address."""
    label: str | None
    """Its class; None for a file that lies in no class's folder."""
    stamp: str
    """Remote files: size and time of change. Local ones: empty."""


def items(folder: str, kind: str) -> list[Item]:
    """Return the rows of format `kind` below a folder, sorted by relative path.

    Hidden files and folders, and other endings, are no rows.
    """
    files = source_remote.inside(folder) if source_remote.is_remote(folder) else _local(Path(folder))
    return [
        Item(relative, path, relative.split("/")[0] if "/" in relative else None, stamp)
        for relative, path, stamp in sorted(files)
        if relative.lower().endswith(ENDINGS[kind]) and not any(name.startswith(".") for name in relative.split("/"))
    ]


def kind_of(folder: Path, *, classes: bool) -> str | None:
    """Return the format of a local folder by the files in its folders, None if they are no rows.

    Without `classes` (rows to predict) images that lie in the folder itself count too. Raises `DataError` if it holds
    rows of more than one format.
    """
    found: dict[str, str] = {}
    for relative, path, _ in _local(folder):
        for kind, endings in ENDINGS.items():
            counts = "/" in relative or (kind == "images" and not classes)
            if counts and relative.lower().endswith(endings):
                found.setdefault(kind, path)
    if len(found) > 1:
        raise DataError(
            f"{folder} holds texts and images, as {found['text']} and {found['images']}",
            f"say which of them are the rows: set data.format to one of {', '.join(found)}, or take the others out",
        )
    return next(iter(found), None)


def must_hold_rows(folder: str, kind: str, part: str) -> None:
    """Raise `DataError` for a local folder without a file of format `kind`."""
    if items(folder, kind):
        return
    endings = Counter(Path(relative).suffix or "no ending" for relative, _, _ in _local(Path(folder)))
    there = ", ".join(f"{count} with {ending}" for ending, count in endings.most_common(3)) or "no file at all"
    known = " or ".join(ENDINGS[kind])
    raise DataError(
        f"data.{part}={folder!r} holds no {known} file ({there})",
        f"put them at {Path(folder) / 'CLASS' / f'NAME{ENDINGS[kind][0]}'}",
    )


def must_have(folder: str, columns: Mapping[str, str], holds: str) -> None:
    """Raise `DataError` for a role that a folder has nothing for: its files are the role `holds`, its folders the label."""
    other = next((role for role in columns if role not in (holds, "label")), None)
    if other:
        raise DataError(
            f"{folder} is a folder of {holds} files: each has its {holds} and a label, but nothing for the {other}",
            "put the rows into a csv, jsonl or parquet file with such a column",
        )


def _local(folder: Path, inside: str = "", above: frozenset[str] = frozenset()) -> Iterator[tuple[str, str, str]]:
    """Yield (relative path, path, "") of all files but those in hidden folders. Links to folders are followed.

    Raises `DataError` for a folder that cannot be read and a link to what is gone: their rows would be missing.
    """
    here = os.path.realpath(folder)
    if here in above:  # a link to a folder that it lies in
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}", "check its permissions") from error
    for entry in found:
        if entry.is_dir():
            if not entry.name.startswith("."):
                yield from _local(Path(entry.path), f"{inside}{entry.name}/", above | {here})
        elif entry.is_symlink() and not Path(entry.path).exists() and not entry.name.startswith("."):
            raise DataError(f"{entry.path} is a link to what is not there", "correct the link, or remove it")
        else:
            yield f"{inside}{entry.name}", str(entry.path), ""
