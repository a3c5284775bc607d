"""The claim on a run's folder: only the process that claimed it last may write there.

A machine that is cut off from the cluster, but not from the storage, trains on while its replacement does the same work
elsewhere. Without a claim, both would write epochs and checkpoints into one folder.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from cluster.errors import RaymillError
from cluster.files import write_bytes

_FILE = "writer"
# Reading the claim costs a round trip to the storage, and a step may take a millisecond.
_CHECK_EVERY_S = 2.0


class Superseded(RaymillError):
    """Another process has taken over the run, so this one must end without writing."""


class Claim:
    """This process's claim on the folder of a run. A new claim ends all earlier ones."""

    def __init__(self, folder: Path) -> None:
        self._path, self._id = folder / _FILE, uuid.uuid4().hex
        self._next_check = 0.0
        write_bytes(self._path, self._id.encode())

    @property
    def is_valid(self) -> bool:
        """Whether no other process has claimed the folder; true if that cannot be read at present."""
        try:
            return self._path.read_text(encoding="ascii") == self._id
        except OSError:
            return True

    def check(self, *, now: bool = True) -> None:
        """Raise `Superseded` if another process has claimed the folder; without `now`, look every 2 s only."""
        if not now and time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + _CHECK_EVERY_S
        if not self.is_valid:
            raise Superseded(f"another process has taken over the run in {self._path.parent}")
