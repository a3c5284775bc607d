"""Which part of a training one process does, and where."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """One worker of a training."""

    rank: int
    workers: int
    device: str
    threads: int

    @property
    def device_type(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.partition(":")[0]
