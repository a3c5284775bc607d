"""The running mean of the weights (EMA): what is validated and kept in their place where the spec asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


class Average:
    """Mean weights of the parameters that learn. Without a decay it keeps none, and the weights themselves are used."""

    def __init__(self, model: torch.nn.Module, decay: float | None) -> None:
        self._decay = decay
        self._live = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.weights = {name: value.detach().clone() for name, value in self._live.items()} if decay else {}

    def stepped(self) -> None:
        """Take the weights after one optimiser step into the mean."""
        if self._decay:
            live = [self._live[name].detach() for name in self.weights]
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
        with torch.no_grad():
            for name, mean in self.weights.items():
                live = self._live[name]
                held = live.detach().clone()
                live.copy_(mean)
                mean.copy_(held)
