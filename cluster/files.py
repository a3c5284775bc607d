"""Files that are either whole or not there: write beside, fsync, rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from cluster.errors import ResourceError

#: In a folder that is being filled: which process does it.
OWNER = ".owner"
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


# Lines of each file that could not be written yet.
_waiting: dict[Path, list[str]] = {}
_appending = threading.Lock()
_MOST_WAITING = 100_000


def append_line(path: Path, line: str) -> None:
    """Add a line to a file. On a full disk it waits in memory, and goes with the next line that any file gets.

    A line is never half there: what a full disk took of it is cut off again.
    """
    with _appending:
        waiting = _waiting.setdefault(path, [])
        del waiting[:-_MOST_WAITING]
        waiting.append(line)
        for each, lines in list(_waiting.items()):
            if _append(each, "".join(f"{line}\n" for line in lines).encode()):
                del _waiting[each]


def _append(path: Path, content: bytes) -> bool:
    """Add to a file all or nothing; returns whether it was all."""
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            if file.write(content) == len(content):
                return True
            file.truncate(before)
    except OSError:
        pass
    return False


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
                sync_file(path)
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
    """Remove what an interrupted `new_folder` or staging left in `folder`: hidden folders with a random end.

    Those that say whose they are go as soon as that process has ended, others after a day.
    """
    oldest = time.time() - older_than_s
    for path in folder.glob(".*") if folder.is_dir() else []:
        with contextlib.suppress(FileNotFoundError):  # its owner may be renaming it this moment
            left_over = _LEFT_OVER.search(path.name) and path.is_dir()
            if left_over and (path.stat().st_mtime < oldest or _is_abandoned(path)):
                shutil.rmtree(path, ignore_errors=True)


def sign(folder: Path) -> None:
    """Say in `folder` that it is this process's, for `sweep`."""
    (folder / OWNER).write_text(json.dumps(_this_process(os.getpid())))


def _this_process(pid: int) -> list[str | float]:
    return [socket.gethostname(), pid, psutil.Process(pid).create_time()]


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder is signed by a process of this machine that has ended; a process of another one may still run."""
    try:
        host, pid, started = json.loads((folder / OWNER).read_bytes())
    except (OSError, ValueError, TypeError):
        return False
    if host != socket.gethostname():
        return False
    try:
        return _this_process(int(pid)) != [host, pid, started]
    except psutil.NoSuchProcess:
        return True


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


def sync_file(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # some network file systems cannot
        sync_file(path)


def no_room(path: Path, error: OSError) -> ResourceError:
    """Return what an error while writing `path` means to the user."""
    return ResourceError(
        f"{path} cannot be written: {error.strerror or error}", "check free space and permissions of the storage folder"
    )
