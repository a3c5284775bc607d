"""Locks among processes: files that one process at a time holds."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cluster.errors import ResourceError
from cluster.files import storage_error

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


def lock_error(path: Path, error: Exception) -> ResourceError:
    """Return the `ResourceError` for an error while locking `path`."""
    if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
        return storage_error(path, error)
    return ResourceError(
        f"{path.parent} is on a file system without file locks: {error}",
        "put the storage folder on another disk; `raymill doctor --storage FOLDER` tries one",
    )
