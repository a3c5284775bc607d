"""SHA-256 of large files: several at once, and each once a day on a machine.

A model of 8 billion parameters has 16 GB, which one core hashes in 12 s (1.36 GB/s). Eight replicas that start on one
machine would do that eight times. So the digest of a large file is written to a temporary folder of this user, under
what the file system says of the file: device, inode, size, and the times of the last change of its content and of its
inode. Nobody but the system sets the last one, so a file that was written to, or replaced, is hashed again. So is a file
that changed just before it was hashed, and every file after a day, because a disk may also lose bits by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.errors import ResourceError
from cluster.files import file_sha256, json_sha256, write_bytes
from cluster.locks import file_lock
from cluster.machine import count_cores

# Smaller files take less time to hash than to look up.
_LARGE_BYTES = 64 << 20
_DAY_S = 86_400.0
# Some file systems store times in steps of up to two seconds: a file may change again within one.
_TIME_STEP_S = 2.0
_MAX_THREADS = 8
_DIGEST = re.compile(r"[0-9a-f]{64}")


def file_digests(paths: Sequence[Path], folder: Path | None = None) -> list[str]:
    """Return the hex SHA-256 of each file, in order. Large files are hashed at most once a day on this machine.

    `folder` has the digests of large files; by default a temporary folder of this user. Raises `OSError` if a file
    cannot be read.
    """
    folder = folder or _own_folder()
    threads = min(len(paths), count_cores(), _MAX_THREADS)
    if threads < 2 or sum(path.stat().st_size for path in paths) < _LARGE_BYTES:
        return [_digest(path, folder) for path in paths]
    with ThreadPoolExecutor(threads, thread_name_prefix="raymill-hash") as pool:  # hashing releases the GIL
        return list(pool.map(lambda path: _digest(path, folder), paths))


def _digest(path: Path, folder: Path | None) -> str:
    status = path.stat()
    changed_s = time.time() - max(status.st_mtime, status.st_ctime)
    if folder is None or status.st_size < _LARGE_BYTES or changed_s < _TIME_STEP_S:
        return file_sha256(path)
    entry = folder / json_sha256(_identity(status))
    with _only_one(entry):
        stored = _read(entry)
        if stored:
            return stored
        digest = file_sha256(path)
        if _identity(path.stat()) == _identity(status):  # it did not change meanwhile
            with contextlib.suppress(OSError, ResourceError):  # a full disk: it is hashed again next time
                _remove_old(folder)
                write_bytes(entry, digest.encode())
        return digest


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


@contextlib.contextmanager
def _only_one(entry: Path) -> Iterator[None]:
    """Let one process of this machine hash a file at a time; the others then read its digest."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ResourceError):  # no locks here: each process hashes for itself
            stack.enter_context(file_lock(entry.with_suffix(".lock")))
        yield


def _read(entry: Path) -> str | None:
    """Return a digest that was stored within the last day."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if 0 <= time.time() - entry.stat().st_mtime < _DAY_S:
            text = entry.read_text(encoding="ascii")
            return text if _DIGEST.fullmatch(text) else None
    return None


def _remove_old(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY_S and path.suffix != ".lock":
                path.unlink()
                path.with_suffix(".lock").unlink(missing_ok=True)


def _own_folder() -> Path | None:
    """Return the folder for digests that only this user can write to; None if there is none."""
    if not hasattr(os, "getuid"):
        return None
    with contextlib.suppress(OSError):
        folder = Path(tempfile.gettempdir(), f"raymill-digests-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid() and not status.st_mode & 0o077:
            return folder
    return None
