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
_CHECK_EVERY_S = 0.5
# After this time every other process has seen a new claim.
_TAKEN_OVER_AFTER_S = 0.7
_PROCESS = uuid.uuid4().hex


class Superseded(RaymillError):
    """Another process has taken over the run, so this one must end without writing."""


class Claim:
    """This process's claim on the folder of a run. A new claim ends all earlier ones."""

    def __init__(self, folder: Path) -> None:
        """Claim the folder, and wait until a process that claimed it earlier must have seen that."""
        self._path, self._id = folder / _FILE, f"{_PROCESS}-{uuid.uuid4().hex}"
        self._next_check = 0.0
        earlier = self._read()
        write_bytes(self._path, self._id.encode())
        if earlier and not earlier.startswith(_PROCESS):
            time.sleep(_TAKEN_OVER_AFTER_S)

    @property
    def is_valid(self) -> bool:
        """Whether no other process has claimed the folder; true if that cannot be read at present."""
        return self._read() in (self._id, None)

    def _read(self) -> str | None:
        try:
            return self._path.read_text(encoding="ascii")
        except OSError:
            return None

    def check(self, *, now: bool = True) -> None:
        """Raise `Superseded` if another process has claimed the folder; without `now`, look every 0.5 s only."""
        if not now and time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + _CHECK_EVERY_S
        if not self.is_valid:
            raise Superseded(f"another process has taken over the run in {self._path.parent}")
