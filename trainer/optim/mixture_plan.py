"""The mixture plan: the rows of an epoch if files have weights, a pure function of (sources, lengths, weights, seed, epoch).

Every epoch has about the same number of tokens, whatever the weights of its sources: a source that is left out in an epoch
leaves its room to the others. Letters in shapes: R rows, S sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class SourceWeight(NamedTuple):
    """How often the rows of one source are used."""

    weight: float = 1.0
    from_epoch: int = 1
    to_epoch: int | None = None

    def in_epoch(self, epoch: int) -> float:
        """Return the weight in an epoch; 0 if the source is not used in it."""
        is_used = self.from_epoch <= epoch and (self.to_epoch is None or epoch <= self.to_epoch)
        return self.weight if is_used else 0.0


def epoch_tokens(sources: np.ndarray, lengths: np.ndarray, weights: Sequence[SourceWeight]) -> int:
    """Return the number of tokens of every epoch: each source's tokens times its weight, as if all were used.

    `sources` (R,) is the source of each row, `lengths` (R,) its tokens.
    """
    tokens_S = np.bincount(sources, lengths, len(weights))
    return round(float(tokens_S @ np.array([source.weight for source in weights])))


def epoch_rows(
    sources: np.ndarray, lengths: np.ndarray, weights: Sequence[SourceWeight], seed: int, epoch: int
) -> np.ndarray:
    """Return the rows of an epoch, int64: a row appears as often as it is used. An epoch without a source is empty."""
    tokens_S = np.bincount(sources, lengths, len(weights))
    active_S = np.array([source.in_epoch(epoch) for source in weights])
    if not float(tokens_S @ active_S):
        return np.empty(0, np.int64)
    uses_S = active_S * (epoch_tokens(sources, lengths, weights) / float(tokens_S @ active_S))
    parts = []
    for source, uses in enumerate(uses_S):
        rows = np.flatnonzero(sources == source)
        whole, rest = divmod(round(float(uses) * len(rows)), max(1, len(rows)))
        generator = np.random.default_rng(np.random.SeedSequence([seed, epoch, source]))
        parts += [rows] * whole + [np.sort(generator.permutation(rows)[:rest])]
    return np.concatenate(parts).astype(np.int64)
