"""What an engine is: encoded inputs to logits. Letters in shapes: B rows, T tokens, C outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from trainer.inference.predictor import Predictor


class EngineError(Exception):
    """An engine cannot be built or loaded here; the message says why."""


def one_line(error: Exception) -> str:
    """Return what a library's error says, cut to a line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"


class Engine(ABC):
    """A model, ready to compute."""

    #: What one more call costs, in padded tokens: a batch is split by length where that leaves out more padding.
    call_tokens = 64
    #: Whether it does without the torch model it was made from.
    keeps_its_own_weights = False

    @abstractmethod
    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return float32 logits, shape (B, C), in the order of `inputs`."""


class Padded(Engine):
    """An engine that takes rows padded to one length."""

    def __init__(self, predictor: Predictor) -> None:
        self._task, self._contract = predictor.task, predictor.contract
        self._width = self._task.target.width(self._contract.fitted)

    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        found = np.empty((len(inputs), self._width), dtype=np.float32)
        for rows in split_by_length([len(ids) for ids in inputs], self.call_tokens):
            batch = self._task.collate(self._contract, [inputs[row] for row in rows])
            found[rows] = self._compute({name: value.numpy() for name, value in batch.items()})
        return found

    @abstractmethod
    def _compute(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Return the logits of a batch as the task's `collate` makes it."""


def must_be_near(logits: np.ndarray, own: np.ndarray, near: float) -> None:
    """Raise `EngineError` where a logit is further from the model's `own` than `near`, of what those are apart."""
    spread = float(own.max() - own.min()) or 1.0
    moved = np.abs(logits - own).max() / spread
    if not moved <= near:  # nor where it is no number
        raise EngineError(f"it moves logits by {moved:.2%}")


def split_by_length(lengths: list[int], call_tokens: int) -> list[list[int]]:
    """Return the rows of a batch in groups of like length, the cheapest way to pad them.

    A group costs its rows times its longest, and `call_tokens` beside. The best cuts of the rows in order of length are found
    from the shortest up: what ends at row i is the cheapest of what ended at j and one group from j to i.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cheapest, cut = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        costs = [cheapest[start] + (end - start) * longest + call_tokens for start in range(end)]
        best = min(range(end), key=costs.__getitem__)
        cheapest.append(costs[best])
        cut.append(best)
    groups, end = [], len(order)
    while end:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups
