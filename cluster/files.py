"""Files that are either whole or not there: write beside, fsync, rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import ResourceError

_LEFT_OVER = re.compile(r"[.-][0-9a-f]{8}$")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader finds the old file, the new one, or none, and never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise no_room(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`; raises `ValueError` if it is no JSON and `OSError` if it cannot be read."""
    return json.loads(path.read_bytes())


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `final` when the block ends well and is removed when it does not.

    Raises `FileExistsError` if another process was first; its folder is left as it is.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    beside.mkdir()
    try:
        yield beside
        for path in beside.rglob("*"):
            if path.is_file():
                _sync_file(path)
        try:
            beside.rename(final)  # a rename onto a folder that holds files fails: first come, first served
        except OSError as error:
            if final.exists():
                raise FileExistsError(str(final)) from error
            raise no_room(final, error) from error
        _sync_folder(final.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sweep(folder: Path, older_than_s: float = 86_400.0) -> None:
    """Remove what an interrupted `new_folder` or staging left in `folder` over a day ago: hidden folders with a random end."""
    oldest = time.time() - older_than_s
    for path in folder.glob(".*") if folder.is_dir() else []:
        with contextlib.suppress(FileNotFoundError):  # its owner may be renaming it this moment
            if _LEFT_OVER.search(path.name) and path.is_dir() and path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of(value: Any) -> str:
    """Return the hex SHA-256 of a JSON value in its one canonical form."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # some network file systems cannot
        _sync_file(path)


def no_room(path: Path, error: OSError) -> ResourceError:
    """Return what an error while writing `path` means to the user."""
    return ResourceError(
        f"{path} cannot be written: {error.strerror}", "check free space and permissions of the storage folder"
    )
