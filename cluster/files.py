"""Write files and folders that are either complete or absent: write under a temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from cluster.errors import ResourceError

#: Name of a file in an unfinished folder. It identifies the process that writes the folder.
OWNER_FILE = ".owner"
_TEMPORARY_NAME = re.compile(r"[.-][0-9a-f]{8}$")
_MAX_QUEUED_LINES = 100_000
_DAY_S = 86_400.0
_CHUNK_BYTES = 1 << 20
# What some network and user-space file systems answer to fsync.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

# Lines that could not be written yet, by file.
_queued: dict[Path, list[str]] = {}
_append_lock = threading.Lock()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, completely or not at all. A reader never sees a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            _sync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, completely or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def append_line(path: Path, line: str) -> None:
    """Append a line to a file. If the disk is full, keep the line in memory and write it in a later call.

    The file never holds part of a line: an incomplete write is truncated.
    """
    with _append_lock:
        lines = _queued.setdefault(path, [])
        del lines[:-_MAX_QUEUED_LINES]
        lines.append(line)
        for queued_path, queued_lines in list(_queued.items()):
            if _append(queued_path, "".join(f"{text}\n" for text in queued_lines).encode()):
                del _queued[queued_path]


def _append(path: Path, content: bytes) -> bool:
    """Append all of `content` or nothing. Return whether it was written."""
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            if file.write(content) == len(content):
                return True
            file.truncate(size)
    except OSError:
        pass
    return False


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`. Raises `ValueError` if it is not JSON, and `OSError` if it cannot be read."""
    return json.loads(path.read_bytes())


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder. Rename it to `final` when the block ends, or remove it if the block raises.

    Raises `FileExistsError` if another process has made `final` in the meantime; that folder stays unchanged.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                sync_file(path)
        try:
            temporary.rename(final)  # fails if `final` is a folder with files: the first process wins
        except OSError as error:
            if final.exists():
                raise FileExistsError(str(final)) from error
            raise storage_error(final, error) from error
        _sync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path) -> int:
    """Remove a folder with everything in it: rename it first, so that it is gone at once, then delete it.

    Returns the size of the deleted files in bytes. Links in the folder are deleted, and what they point to stays. An
    interrupted deletion is completed by `remove_leftovers`. Raises `ResourceError` if something cannot be deleted.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    size = folder_bytes(folder)
    try:
        folder.rename(temporary)
        _sync_folder(folder.parent)
        shutil.rmtree(temporary)
    except OSError as error:
        remains = temporary if temporary.exists() else folder
        raise ResourceError(
            f"{remains} cannot be deleted: {error.strerror or error}", "check its permissions, then delete it by hand"
        ) from error
    return size


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a folder in bytes. Links count as themselves and are not followed."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # deleted meanwhile
                size += Path(parent, name).lstat().st_size
    return size


def remove_leftovers(folder: Path, older_than_s: float = _DAY_S) -> None:
    """Remove hidden temporary folders in `folder` that were left by an interrupted `new_folder` or interrupted staging.

    A folder marked by `mark_owner` on this machine is removed once its process has ended. Any other folder is removed
    after `older_than_s`: a clock that jumps makes it older than it is.
    """
    oldest = time.time() - older_than_s
    for path in folder.glob(".*") if folder.is_dir() else []:
        with contextlib.suppress(FileNotFoundError):  # the process that writes it may rename it at this moment
            if not _TEMPORARY_NAME.search(path.name) or not path.is_dir():
                continue
            ended = _owner_has_ended(path)
            if path.stat().st_mtime < oldest if ended is None else ended:
                shutil.rmtree(path, ignore_errors=True)


def mark_owner(folder: Path) -> None:
    """Record this process as the owner of `folder`, for `remove_leftovers`."""
    (folder / OWNER_FILE).write_text(json.dumps(_process_identity(os.getpid())), encoding="utf-8")


def _process_identity(pid: int) -> list[str | int | float]:
    """Return what no other process has or will have, and what does not change when the clock is set.

    psutil computes the time of a process's start from the clock, so it moves with it. Linux counts since the boot.
    """
    with contextlib.suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        ticks = stat.rpartition(b")")[2].split()[19].decode()  # the program's name, in brackets, may hold anything
        return [socket.gethostname(), pid, f"{boot}:{ticks}"]
    return [socket.gethostname(), pid, psutil.Process(pid).create_time()]


def _owner_has_ended(folder: Path) -> bool | None:
    """Return whether a folder's owner has ended; None if it has no owner, or one on another machine."""
    try:
        host, pid, started = json.loads((folder / OWNER_FILE).read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    if host != socket.gethostname():
        return None
    try:
        return _process_identity(int(pid)) != [host, pid, started]
    except psutil.NoSuchProcess:
        return True


def wait_for_folders(folders: Iterable[Path], wait_s: float = 60.0) -> None:
    """Return once all folders are there. Raises `ResourceError` if one is not after `wait_s`: nobody may make it anew.

    A folder on storage that is not mounted is missing, and an empty one in its place would start the work again.
    """
    deadline = time.monotonic() + wait_s
    for folder in folders:
        while not _is_folder(folder):
            if time.monotonic() > deadline:
                raise ResourceError(
                    f"{folder} is not there on machine {socket.gethostname()}",
                    "`storage` and the data must be on folders that every machine can reach: mount them there",
                )
            time.sleep(0.5)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def json_sha256(value: Any) -> str:
    """Return the hex SHA-256 of a JSON value in its canonical form: sorted keys, no spaces, UTF-8."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def sync_file(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Wait until what was written is on the disk, where the file system can say so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
        sync_file(path)


def storage_error(path: Path, error: OSError) -> ResourceError:
    """Return the `ResourceError` for an error while writing `path`."""
    return ResourceError(
        f"{path} cannot be written: {error.strerror or error}",
        "check the free space and the permissions of the storage folder",
    )
