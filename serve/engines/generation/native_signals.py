"""Protect this process's signal handlers from a library that installs its own."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterator

# More than the size of C's `struct sigaction` on any system.
_ACTION_BYTES = 512


@contextlib.contextmanager
def restored_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Restore the process's handlers of these signals afterwards.

    Works in any thread: Python's `signal.signal` works in the main thread only.
    """
    library = ctypes.CDLL(None, use_errno=True)
    saved = {number: ctypes.create_string_buffer(_ACTION_BYTES) for number in numbers}
    for number, action in saved.items():
        library.sigaction(int(number), None, action)
    try:
        yield
    finally:
        for number, action in saved.items():
            library.sigaction(int(number), action, None)
