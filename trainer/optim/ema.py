"""Exponential moving average (EMA) of the weights, which replaces them in validation and saved models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from trainer.optim.torch_internals import lerp_all

if TYPE_CHECKING:
    from trainer.optim.updater import Updater


class EMA:
    """Exponential moving averages of the trainable parameters.

    If `decay` is None, it stores nothing and the current weights are used.
    """

    def __init__(self, updater: Updater, decay: float | None) -> None:
        self._updater, self._decay = updater, decay
        self.weights = {name: value.detach().clone() for name, value in updater.values.items()} if decay else {}

    def update(self) -> None:
        """Move the averages toward the weights; call after every optimizer step."""
        if self._decay:
            live = [self._updater.values[name].detach() for name in self.weights]
            lerp_all(list(self.weights.values()), live, 1.0 - self._decay)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the averages into the model while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        if not self.weights:
            return
        with torch.no_grad():
            for name, average in self.weights.items():
                live = self._updater.values[name]
                copy = live.detach().clone()
                live.copy_(average)
                average.copy_(copy)
        self._updater.sync_model()
