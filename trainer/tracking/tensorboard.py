"""Event files for TensorBoard in the run's folder, by tensorboardX, which Ray brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.spec import RunSpec

FOLDER = "tensorboard"
_FLUSH_S = 10


class TensorBoard:
    """Writes a file once there is a figure."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write scalars."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), flush_secs=_FLUSH_S)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()


def start(spec: RunSpec, folder: Path) -> TensorBoard:
    """Return the writer of `<run>/tensorboard`; a run that goes on writes a further file there, as TensorBoard reads them."""
    return TensorBoard(folder / FOLDER)
