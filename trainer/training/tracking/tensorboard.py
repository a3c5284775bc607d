"""Event files for TensorBoard in the run's folder, in the format of tensorboardX, which Ray depends on.

Its `SummaryWriter` is not used: it writes on its own thread, and after a failed write, for example on a full disk,
later metrics wait in a full queue forever.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"))
        now = time.time()
        for name, value in metrics.items():
            self._writer.write_event(Event(wall_time=now, step=step, summary=scalar(name, value)))
        self._writer.flush()  # so that the file has all logged metrics if the process is killed

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()


def start(spec: RunSpec, folder: Path) -> TensorBoardTracker:
    """Return the writer of `<run>/tensorboard`.

    A resumed run writes another file there, which TensorBoard also reads.
    """
    return TensorBoardTracker(folder / FOLDER)
