"""The interface of a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tracker(Protocol):
    """A service that receives a training's metrics while it runs."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step or epoch by name, such as `train/loss` or `validation/accuracy`."""

    def close(self) -> None:
        """Send what is still pending. Called when the training ends without an error."""
