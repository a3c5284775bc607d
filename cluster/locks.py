"""Locks among processes: files that one process at a time holds."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cluster.errors import ResourceError
from cluster.files import read_json, storage_error, write_json
from cluster.text import utc_now

# What network file systems answer that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def file_lock(path: Path, timeout_s: float = -1) -> Iterator[None]:
    """Hold the lock `path` while the block runs. The system releases it when the process ends, however it ends.

    Waits up to `timeout_s`, or without end if it is negative. Raises `ResourceError` if another process still holds it,
    if the file cannot be written, or if its file system has no locks.
    """
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise ResourceError(
            f"another process has held the lock {path} for {timeout_s:g} s", "wait until it ends, and try again"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise lock_error(path, error) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def owned_lock(path: Path, work: str, wait_s: float) -> Iterator[None]:
    """Hold the lock `path` while the block runs, with a file beside it that names the process that holds it.

    Waits up to `wait_s`. Raises `ResourceError` if another process still holds it: "process 7 on node-3 (since ...) still
    works on WORK". The system releases the lock when the process ends, however it ends.
    """
    owner_file = path.with_name(f"{path.name}-owner.json")
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise ResourceError(
            f"{_owner(owner_file)} still works on {work}", "wait until it ends, or stop it, and then try again"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise lock_error(path, error) from error
    with contextlib.suppress(ResourceError):  # the disk may be full: the work says so itself
        write_json(owner_file, {"host": socket.gethostname(), "pid": os.getpid(), "since": utc_now()})
    try:
        yield
    finally:
        lock.release()


def _owner(file: Path) -> str:
    """Return who holds a lock, in words."""
    try:
        owner = read_json(file)
        return f"process {owner['pid']} on {owner['host']} (since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def lock_error(path: Path, error: Exception) -> ResourceError:
    """Return the `ResourceError` for an error while locking `path`."""
    if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
        return storage_error(path, error)
    return ResourceError(
        f"{path.parent} is on a file system without file locks: {error}",
        "put the storage folder on another disk; `raymill doctor --storage FOLDER` tries one",
    )
