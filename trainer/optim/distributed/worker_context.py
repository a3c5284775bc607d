"""The identity of one training process: its rank, its device and its number of threads."""

from __future__ import annotations

from typing import NamedTuple


class WorkerContext(NamedTuple):
    """One worker of a training."""

    rank: int
    workers: int
    device: str
    threads: int

    @property
    def device_type(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.partition(":")[0]
