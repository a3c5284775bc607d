"""Stop requests: a file in a training's folder that asks its workers to stop at once."""

from __future__ import annotations

import contextlib
from pathlib import Path

_FILE = "end"


def request_stop(folder: Path) -> None:
    """Ask the training in `folder` to stop after its next few steps, without a validation."""
    (folder / _FILE).touch()


def is_stop_requested(folder: Path) -> bool:
    """Return whether the training in `folder` was asked to stop; false if the storage does not answer."""
    with contextlib.suppress(OSError):
        return (folder / _FILE).exists()
    return False


def clear_stop_request(folder: Path) -> None:
    """Remove the stop request, so that a training in `folder` can resume."""
    (folder / _FILE).unlink(missing_ok=True)
