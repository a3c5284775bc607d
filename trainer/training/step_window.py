"""The last few steps: what they cost is read from the device once for all of them, so that no step waits for it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from trainer.optim.distributed.collectives import gathered
from trainer.optim.distributed.worker_context import Place


class Seen(NamedTuple):
    """What the steps of one window were like, over all workers."""

    losses: list[float]
    """Of each step, summed over its rows."""
    norm: float
    """Of the last step's gradient."""
    bad: int | None
    """The first step (from 0) whose loss or gradient is no number."""
    steps: int
    rows: int
    tokens: int
    ends: bool
    """Whether rank 0 says that time is up."""
    saves: bool
    """Whether rank 0 says that it is time to save."""
    stops: bool
    """Whether rank 0 was asked to end at once."""


class Window:
    """Gathers the steps since it was last closed."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._clear()

    def _clear(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._norms: list[torch.Tensor] = []
        self._rows = self._tokens = 0

    def add(self, loss: torch.Tensor, norm: torch.Tensor | None, rows: int, tokens: int) -> None:
        """Take in one step: this worker's summed loss, the whole gradient's norm (None where a scaler may leave a step
        out), rows of all workers and this worker's tokens."""
        self._losses.append(loss)
        if norm is not None:
            self._norms.append(norm)
        self._rows += rows
        self._tokens += tokens

    def closed(self, *, ends: bool, saves: bool, stops: bool) -> Seen:
        """Return what was seen since the last time. All ranks call this."""
        losses = torch.stack(self._losses).double().tolist()
        norms = torch.stack(self._norms).double().tolist() if self._norms else []
        parts = gathered((losses, self._tokens, ends, saves, stops), self._place)  # all ranks
        summed = [sum(of_step) for of_step in zip(*(part[0] for part in parts), strict=True)]
        sound = [math.isfinite(loss) for loss in summed]
        for place, norm in enumerate(norms):
            sound[place] = sound[place] and math.isfinite(norm)
        found = Seen(
            losses=summed,
            norm=norms[-1] if norms else 0.0,
            bad=sound.index(False) if False in sound else None,
            steps=len(losses),
            rows=self._rows,
            tokens=sum(part[1] for part in parts),
            ends=parts[0][2],
            saves=parts[0][3],
            stops=parts[0][4],
        )
        self._clear()
        return found
