"""TODO docstring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tracker(Protocol):
    """One place that a training's figures go to while it runs."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of one step or epoch by name, as `train/loss` or `validation/accuracy`."""

    def close(self) -> None:
        """Send what is left. Called when the training ends well."""
