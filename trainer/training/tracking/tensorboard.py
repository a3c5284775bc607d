"""Event files for TensorBoard in the run's folder, written with TensorBoard's own record writer.

Its `EventFileWriter` is not used: it writes on its own thread, and after a failed write, for example on a full disk,
later metrics wait in a full queue forever. tensorboardX, which Ray depends on, is not used either: it imports torch, which
takes longer than the training of a small table.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer.spec.run import RunSpec

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes metrics to an event file, created with the first metric."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write scalars."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        now = time.time()
        if self._writer is None:
            self._writer = self._open(now)
            self._writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for name, value in metrics.items():
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            self._writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
        self._writer.flush()  # so that the file has all logged metrics if the process is killed

    def _open(self, now: float) -> Any:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        return RecordWriter((self._folder / name).open("ab"))

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()


def start(spec: RunSpec, folder: Path, notify: Callable[[str], None]) -> TensorBoardTracker:
    """Return the writer of `<run>/tensorboard`.

    A resumed run writes another file there, which TensorBoard also reads.
    """
    return TensorBoardTracker(folder / FOLDER)
