"""The engine interface: encoded inputs in, logits out. Letters in shapes: B rows, T tokens, C outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trainer.inference.predictor import Predictor


class EngineError(Exception):
    """An engine cannot be built or loaded on this machine; the message says why."""


class ForwardEngine(ABC):
    """The interface of an engine: it computes the forward pass of one model."""

    #: Cost of one more call, in padded tokens. A batch is split by length if that saves more padding than it costs.
    call_tokens = 64
    #: Whether the engine works without the torch model it was built from.
    owns_weights = False

    @abstractmethod
    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return float32 logits, shape (B, C), in the order of `inputs`: the encoded rows of a batch."""


class PaddedEngine(ForwardEngine):
    """Base of engines that compute on batches in which all rows are padded to the same length."""

    def __init__(self, predictor: Predictor) -> None:
        self._task, self._contract = predictor.task, predictor.contract
        self._width = self._task.target.width(self._contract.fitted)

    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        logits = np.empty((len(inputs), self._width), dtype=np.float32)
        for rows in split_by_length([len(ids) for ids in inputs], self.call_tokens):
            batch = self._task.collate(self._contract, [inputs[row] for row in rows])
            logits[rows] = self._compute({name: value.numpy() for name, value in batch.items()})
        return logits

    @abstractmethod
    def _compute(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Return the logits of a batch from the task's `collate`."""


def check_logits_close(logits: np.ndarray, reference: np.ndarray, tolerance: float) -> None:
    """Raise `EngineError` if a logit differs from the reference by more than `tolerance` times the reference's
    range."""
    spread = float(reference.max() - reference.min()) or 1.0
    difference = np.abs(logits - reference).max() / spread
    if not difference <= tolerance:  # written so that NaN fails too
        raise EngineError(f"it changes logits by {difference:.2%} of their range")


def split_by_length(lengths: list[int], call_tokens: int) -> list[list[int]]:
    """Split a batch into groups of similar length, at the lowest cost in padding and calls; return each group's rows.

    A group costs its number of rows times its longest length, plus `call_tokens`. Dynamic programming over the rows
    sorted by length: the cheapest split of the first i rows is the cheapest split of the first j rows, for the best
    j < i, plus one group of the rows from j to i.
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
