"""The forward pass of the engine over any causal model of transformers: tokens of a step in, logits out.

Letters in shapes: T tokens of a step, R rows of logits, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from cluster.errors import ModelError
from trainer.generation.cache import CacheShape
from trainer.generation.cache_segments import CacheSegments
from trainer.models.causal.attention import use_segments


class Forward(Protocol):
    """Computes the logits of a step."""

    cache_shape: CacheShape
    max_length: int
    """Positions that the model has."""
    vocabulary: int
    device: torch.device

    def __call__(self, ids_T: torch.Tensor, segments: CacheSegments, rows_R: torch.Tensor) -> torch.Tensor:
        """Return float logits (R, V) of the tokens `rows_R` of the step."""


class TransformersForward:
    """The model's own forward, with attention over the engine's cache."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.cache_shape = cache_shape(model)
        config = model.config.get_text_config()
        self.max_length = int(config.max_position_embeddings)
        self.vocabulary = int(config.vocab_size)
        self.device = model.device
        use_segments(model)

    def __call__(self, ids_T: torch.Tensor, segments: CacheSegments, rows_R: torch.Tensor) -> torch.Tensor:
        """Return float logits (R, V) of the tokens `rows_R` of the step."""
        output = self.model(
            input_ids=ids_T[None],
            position_ids=segments.positions_T[None],
            segments=segments,
            use_cache=False,
            logits_to_keep=rows_R,
        )
        return output.logits[0].float()


def cache_shape(model: Any) -> CacheShape:
    """Return what the cache holds for `model`. Raises `ModelError` for models that it cannot hold."""
    config = model.config.get_text_config()
    name = type(model).__name__
    for field, meaning in _UNSUPPORTED.items():
        if getattr(config, field, None):
            raise ModelError(
                f"{name} cannot be served by the torch engine: {meaning} (`{field}`)",
                "choose another model or another engine",
            )
    if not getattr(model, "_supports_attention_backend", False) and not getattr(model, "_supports_sdpa", False):
        raise ModelError(
            f"{name} cannot be served by the torch engine: it does not use transformers' attention interface",
            "choose another model or another engine",
        )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return CacheShape(config.num_hidden_layers, int(heads), int(width), model.dtype)


#: Fields of configs whose models keep a state that is not keys and values, or attend in a way that `attend` does not.
_UNSUPPORTED = {
    "attn_logit_softcapping": "its attention caps the scores",
    "kv_lora_rank": "its attention compresses keys and values",
    "ssm_state_size": "it has state-space layers",
    "mamba_d_state": "it has state-space layers",
    "linear_num_key_heads": "it has linear attention",
    "num_kv_shared_layers": "its layers share keys and values",
}
