"""Keep what Ray and other libraries print off the terminal of a command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from cluster.encoding import open_text


class OutputRedirect:
    """Sends what Ray and other libraries print to a file. Only this object's `stdout` and `stderr` reach the terminal.

    File descriptors 1 and 2 point to the file, because Ray prints from C++ and from other processes too.
    """

    def __init__(self, *, shows_ray_output: bool = False) -> None:
        """With `shows_ray_output`, everything but the command's result is printed on stderr, and no file is used."""
        self._saved: tuple[int, int] | None = None
        self.shows_ray_output = shows_ray_output
        self.stdout: IO[str] = sys.stdout
        self.stderr: IO[str] = sys.stderr
        if shows_ray_output:
            # stdout is reserved for the result.
            self.stdout = open_text(os.dup(1), like=sys.stdout)
            os.dup2(2, 1)

    def redirect(self, path: Path) -> None:
        """Append all output except `self.stdout` and `self.stderr` to `path` from now on."""
        sys.stdout.flush()
        sys.stderr.flush()
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if self._saved is None:
            self._saved = (os.dup(1), os.dup(2))
            self.stdout = open_text(os.dup(self._saved[0]), like=self.stdout)
            self.stderr = open_text(os.dup(self._saved[1]), like=self.stderr)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
