"""A folder of texts: one folder for each class, one .txt file for each row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError
from trainer.data import source_remote

_ENDING = ".txt"


class Text(NamedTuple):
    """One text of the folder."""

    relative: str
    """Path below the folder, with `/`."""
    path: str
    """Path or address."""
    label: str | None
    """Its class; None for a file that lies in no class's folder."""
    stamp: str
    """Remote files: size and time of change. Local ones: empty."""


def texts(folder: str) -> list[Text]:
    """Return the texts below a folder, sorted by relative path. Hidden files and folders, and other endings, are no texts."""
    files = source_remote.inside(folder) if source_remote.is_remote(folder) else _local(Path(folder))
    return [
        Text(relative, path, relative.split("/")[0] if "/" in relative else None, stamp)
        for relative, path, stamp in sorted(files)
        if relative.lower().endswith(_ENDING) and not any(name.startswith(".") for name in relative.split("/"))
    ]


def has_classes(folder: Path) -> bool:
    """Whether a local folder has a text in one of its folders."""
    return any("/" in relative and relative.lower().endswith(_ENDING) for relative, _, _ in _local(folder))


def must_hold_texts(folder: str, part: str) -> None:
    """Raise `DataError` for a local folder without a text."""
    if texts(folder):
        return
    endings = Counter(Path(relative).suffix or "no ending" for relative, _, _ in _local(Path(folder)))
    there = ", ".join(f"{count} with {ending}" for ending, count in endings.most_common(3)) or "no file at all"
    raise DataError(
        f"data.{part}={folder!r} holds no {_ENDING} file ({there})",
        f"put the texts at {Path(folder) / 'CLASS' / f'NAME{_ENDING}'}",
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
