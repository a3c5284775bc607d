"""TODO docstring."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO


class OwnOutput:
    """Keeps this process's terminal to itself: while it is on, whatever Ray and its libraries print goes to a file.

    File descriptors 1 and 2 are pointed at the file, because Ray prints from C++ and from other processes too.
    """

    def __init__(self, *, shows_rays_output: bool = False) -> None:
        self._saved: tuple[int, int] | None = None
        self.shows_rays_output = shows_rays_output
        self.stdout: IO[str] = sys.stdout
        self.stderr: IO[str] = sys.stderr
        if shows_rays_output:
            # stdout is for results alone.
            self.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
            os.dup2(2, 1)

    def redirect(self, path: Path) -> None:
        """Send all output but our own to `path` (appended)."""
        sys.stdout.flush()
        sys.stderr.flush()
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if self._saved is None:
            self._saved = (os.dup(1), os.dup(2))
            self.stdout = os.fdopen(os.dup(self._saved[0]), "w", buffering=1, encoding="utf-8", errors="replace")
            self.stderr = os.fdopen(os.dup(self._saved[1]), "w", buffering=1, encoding="utf-8", errors="replace")
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
