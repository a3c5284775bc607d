"""The running mean of the weights (EMA): what is validated and kept in their place where the spec asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trainer.optim.updater import Updater


class Average:
    """Mean weights of the parameters that learn. Without a decay it keeps none, and the weights themselves are used."""

    def __init__(self, updater: Updater, decay: float | None) -> None:
        self._updater, self._decay = updater, decay
        self.weights = {name: value.detach().clone() for name, value in updater.values.items()} if decay else {}

    def updated(self) -> None:
        """Take the weights after one optimiser step into the mean."""
        if self._decay:
            live = [self._updater.values[name].detach() for name in self.weights]
            torch._foreach_lerp_(list(self.weights.values()), live, 1.0 - self._decay)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Have the mean in the model while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        if not self.weights:
            return
        with torch.no_grad():
            for name, mean in self.weights.items():
                live = self._updater.values[name]
                held = live.detach().clone()
                live.copy_(mean)
                mean.copy_(held)
        self._updater.publish()
