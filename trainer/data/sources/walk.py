"""List the files below a folder, local or remote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError
from trainer.data.sources.remote import is_remote, list_remote_folder


class FolderFile(NamedTuple):
    """One file below a folder. A hidden folder is listed as one entry that ends in `/`, without its files."""

    relative: str
    """Path relative to the folder, with `/`."""
    path: str
    """Path or address."""
    stamp: str
    """Size and modification time of a remote file; empty for a local one."""
    size: int
    """Size in bytes."""


def walk_folder(folder: str) -> list[FolderFile]:
    """Return all files below a folder. Links to folders are followed.

    Raises `DataError` for a folder that cannot be read and for a broken link: their rows would be missing.
    """
    if is_remote(folder):
        return [FolderFile(*entry, int(entry[2].split()[0])) for entry in list_remote_folder(folder)]
    return list(_walk_local(Path(folder), "", frozenset()))


def is_hidden(relative: str) -> bool:
    """Whether a file, or a folder above it, has a hidden name."""
    return any(name.startswith(".") for name in relative.split("/"))


def _walk_local(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[FolderFile]:
    real_path = os.path.realpath(folder)
    if real_path in above:  # a link to a folder that contains the link
        return
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}", "check its permissions") from error
    for entry in entries:
        is_folder, name_is_hidden = entry.is_dir(), entry.name.startswith(".")
        if is_folder and name_is_hidden:
            yield FolderFile(f"{prefix}{entry.name}/", str(entry.path), "", 0)
        elif is_folder:
            yield from _walk_local(Path(entry.path), f"{prefix}{entry.name}/", above | {real_path})
        elif entry.is_symlink() and not Path(entry.path).exists():
            if not name_is_hidden:
                raise DataError(
                    f"{entry.path} is a broken link: its target does not exist", "correct or remove the link"
                )
        else:
            yield FolderFile(f"{prefix}{entry.name}", str(entry.path), "", entry.stat().st_size)
