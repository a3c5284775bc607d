"""Prepare a process that raymill owns: its standard streams, limit of open files, working directory and warnings."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from pathlib import Path

from cluster.errors import ResourceError
from cluster.paths import check_is_text

#: How many files a process may open at once if the system allows it: an endpoint needs one for each connection.
OPEN_FILES = 65_536
# Some 10 microseconds; the default is 300,000 spins.
_SPINS = 10_000
# How many more objects than before start a collection of garbage, and how many collections one of older objects.
_GARBAGE_THRESHOLDS = (50_000, 20, 20)


def open_standard_streams() -> None:
    """Open /dev/null in place of each standard stream that is closed, as it may be under cron or a service manager.

    Otherwise the next file that is opened takes the stream's number, and what libraries print goes there.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None or _is_open(descriptor):
            continue
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)
        setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False))


def raise_open_files_limit() -> None:
    """Raise the limit of open files to `OPEN_FILES`, or to what the system lets this process have."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def limit_spinning() -> None:
    """Let threads of OpenMP wait briefly in a loop, then sleep, in this process and in those that it starts.

    By default they wait in the loop for milliseconds, and take the core that another thread or program needs. With
    `_SPINS` a fine-tuning was as fast on two idle cores, and took 63 s instead of 88 s beside three busy programs.
    Must be called before a library with OpenMP is loaded. A setting of the user stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))


def collect_garbage_less_often() -> None:
    """Look for reference cycles after 50,000 new objects instead of 700.

    Importing torch and transformers makes a million objects that stay. Looking through them again and again took 0.45 of
    the 5.8 CPU-seconds of a small prediction.
    """
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


def working_directory() -> Path:
    """Return the working directory. Raises `ResourceError` if it was deleted, or if its path is not UTF-8."""
    try:
        folder = Path.cwd()
        check_is_text(folder)
        return folder
    except OSError as error:
        raise ResourceError(
            f"the working directory cannot be read: {error.strerror}; it was deleted, or is on a disk that is gone",
            "change to a folder that exists, such as `cd ~`, and try again",
        ) from error


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def show_warnings() -> None:
    """Show warnings where PYTHONWARNINGS turns them into errors, in this process and in those that it starts.

    The variable is meant for the user's own code. Ray and other libraries warn when they are imported, and would not
    start.
    """
    if any(action == "error" for action, *_ in warnings.filters):
        warnings.simplefilter("default")
        os.environ["PYTHONWARNINGS"] = "default"
