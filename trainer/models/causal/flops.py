"""The arithmetic of a training step of a causal language model, without what is computed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.models.causal.batch import count_learned

# A multiplication and an addition for each weight and token; the backward pass computes the gradient of the inputs, and
# that of the weights that learn.
_FORWARD, _INPUT_GRADIENT, _WEIGHT_GRADIENT = 2, 2, 2


class StepArithmetic:
    """Counts the floating-point operations of steps of one model, by the usual convention: matrix products only."""

    def __init__(self, model: Any) -> None:
        config, head = model.config.get_text_config(), model.get_output_embeddings()
        in_embeddings = {id(value) for value in model.get_input_embeddings().parameters()}
        of_head = {id(value) for value in head.parameters()}
        body = [
            value
            for value in model.parameters()
            if value.ndim > 1 and id(value) not in in_embeddings and id(value) not in of_head
        ]
        self._per_token = sum(map(_weight_flops, body))
        self._per_learned = sum(_weight_flops(value) for value in head.parameters() if value.ndim > 1)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # Scores and sums of values: two products of half a square, forward once and backward twice.
        self._per_square = 2 * 2 * 0.5 * 3 * config.num_attention_heads * width * config.num_hidden_layers

    def __call__(self, inputs: Sequence[np.ndarray]) -> float:
        """Return the operations of one step on rows with these model inputs."""
        tokens = sum(map(len, inputs))
        squares = sum(len(row) ** 2 for row in inputs)
        learned = sum(map(count_learned, inputs))
        return self._per_token * tokens + self._per_learned * learned + self._per_square * squares


def _weight_flops(value: Any) -> int:
    factor = _FORWARD + _INPUT_GRADIENT + (_WEIGHT_GRADIENT if value.requires_grad else 0)
    return factor * int(value.numel())
