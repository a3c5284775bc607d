"""Event files for TensorBoard in the run's folder, in the format of tensorboardX, which Ray brings.

Its `SummaryWriter` is not used: a thread of its own writes, and once that has failed, as on a full disk, the next figures
wait in a full queue for ever.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.spec.run import RunSpec

FOLDER = "tensorboard"


class TensorBoard:
    """Writes a file once there is a figure."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write scalars."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"))
        now = time.time()
        for name, value in figures.items():
            self._writer.write_event(Event(wall_time=now, step=step, summary=scalar(name, value)))
        self._writer.flush()  # a process that is killed leaves what it logged, as the run's own lines

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()


def start(spec: RunSpec, folder: Path) -> TensorBoard:
    """Return the writer of `<run>/tensorboard`; a run that goes on writes a further file there, as TensorBoard reads them."""
    return TensorBoard(folder / FOLDER)
