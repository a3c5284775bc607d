"""A folder of texts: one folder for each class, one .txt file for each row."""

from __future__ import annotations

import os
from collections import Counter
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
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return any(relative.lower().endswith(_ENDING) for path in inside for relative, _, _ in _local(path))


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


def _local(folder: Path) -> list[tuple[str, str, str]]:
    found = []
    for above, _, names in os.walk(folder):  # does not follow links to folders, which may go in circles
        for name in names:
            path = Path(above, name)
            found.append((path.relative_to(folder).as_posix(), str(path), ""))
    return found
