"""Held-out texts that engines are timed on and held to the model with.

Letters in shapes: N positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trainer.chat.tokens import learned_mask, token_ids
from trainer.generation.engine import Engine, GenerationRequest, SamplingParams, complete_all

# Texts to compare engines on, their tokens, and the positions in each.
_TEXTS, _TOKENS, _POSITIONS = 32, 256, 8
_GREEDY = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)


class Judgment(NamedTuple):
    """What an engine gives for the held-out tokens."""

    logprobs: np.ndarray
    """Log-probability of each token, given those before it: float64, shape (N, 1)."""
    best: np.ndarray
    """Id of the most probable token in its place, shape (N,)."""


class HeldOutTexts:
    """Texts with the positions of tokens that the model has learned to write."""

    def __init__(self, inputs: Sequence[np.ndarray], max_length: int) -> None:
        """`inputs` are a contract's encoded rows. Of a row without learned tokens, all but the first one are judged."""
        self._texts: list[list[int]] = []
        self._positions: list[list[int]] = []
        self.prompts: list[list[int]] = []
        """Token ids before the first judged token, for timing."""
        for tokens in inputs[:_TEXTS]:
            tokens = np.asarray(tokens)[: min(_TOKENS, max_length - 1)]
            learned = np.flatnonzero(learned_mask(tokens))
            usable = learned[learned > 0] if len(learned) else np.arange(1, len(tokens))
            if not len(usable):
                continue
            picked = np.unique(np.linspace(0, len(usable) - 1, _POSITIONS).round().astype(int))
            self._texts.append(token_ids(tokens).tolist())
            self._positions.append(usable[picked].tolist())
            self.prompts.append(self._texts[-1][: int(usable[0])])

    @property
    def n_positions(self) -> int:
        """The number of tokens that are judged."""
        return sum(map(len, self._positions))

    def judge(self, engine: Engine) -> Judgment:
        """Return what `engine` gives for the judged tokens, given the true tokens before each."""
        scores = engine.score(self._texts)
        logprobs = [
            float(score[position - 1])
            for score, positions in zip(scores, self._positions, strict=True)
            for position in positions
        ]
        return Judgment(np.array(logprobs, np.float64)[:, None], self._best_tokens(engine))

    def _best_tokens(self, engine: Engine) -> np.ndarray:
        """Return the most probable token at each position.

        The first position of all texts is asked for, then the second: engines remember the beginning of each text.
        """
        best: dict[tuple[int, int], int] = {}
        for rank in range(_POSITIONS):
            asked = [text for text, positions in enumerate(self._positions) if rank < len(positions)]
            requests = [
                GenerationRequest(f"{rank}/{text}", self._texts[text][: self._positions[text][rank]], _GREEDY)
                for text in asked
            ]
            for text, answer in zip(asked, complete_all(engine, requests), strict=True):
                best[text, rank] = answer.token_ids[0]
        return np.array([best[key] for key in sorted(best)])
