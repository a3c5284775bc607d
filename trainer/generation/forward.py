"""The forward pass of the engine over any causal model of transformers: tokens of a step in, logits out.

Letters in shapes: T tokens of a step, R rows of logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from cluster.errors import ModelError
from trainer.generation.adapters import AdapterSpan, Layers, read_adapter
from trainer.generation.cache import CacheShape
from trainer.generation.cache_segments import CacheSegments
from trainer.models.causal.attention import use_segments


class Forward(Protocol):
    """Computes the logits of a step."""

    cache_shape: CacheShape
    max_length: int
    """Positions that the model has."""
    vocabulary: int
    history_tokens: int
    """Tokens before each token that the model needs with it, for example for n-grams; 0 for most models."""
    device: torch.device

    def add_adapter(self, number: int, folder: Path) -> None:
        """Load an adapter of peft as `number`. Raises `ModelError`."""

    def drop_adapter(self, number: int) -> None:
        """Free an adapter."""

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
        self.history_tokens = int(getattr(config, "history_tokens", 0))
        self._linears = {
            name: layer
            for name, layer in model.named_modules()
            if hasattr(layer, "weight") or hasattr(layer, "in_features")
        }
        self._adapters: dict[int, Layers] = {}
        self._spans: Sequence[AdapterSpan] = ()
        self._hooked: set[str] = set()
        use_segments(model)

    def add_adapter(self, number: int, folder: Path) -> None:
        """Load an adapter of peft as `number`. Raises `ModelError`."""
        names = {name for name in self._linears if self._linears[name] is not self.model.get_output_embeddings()}
        layers = read_adapter(folder, names, self.device)
        for name in layers.keys() - self._hooked:
            self._linears[name].register_forward_hook(partial(self._add_to, name))
            self._hooked.add(name)
        self._adapters[number] = layers

    def drop_adapter(self, number: int) -> None:
        """Free an adapter."""
        del self._adapters[number]

    def _add_to(self, name: str, _: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        """Add what adapters add to the output of a linear layer, (1, T, O)."""
        for span in self._spans:
            layer = self._adapters[span.adapter].get(name)
            if layer is not None:
                layer.add(output[0, span.start : span.stop], inputs[0][0, span.start : span.stop])
        return output

    def __call__(self, ids_T: torch.Tensor, segments: CacheSegments, rows_R: torch.Tensor) -> torch.Tensor:
        """Return float logits (R, V) of the tokens `rows_R` of the step."""
        history = {} if segments.history_TN is None else {"history_ids": segments.history_TN[None]}
        self._spans = segments.adapters
        output = self.model(
            input_ids=ids_T[None],
            position_ids=segments.positions_T[None],
            segments=segments,
            use_cache=False,
            logits_to_keep=rows_R,
            **history,
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
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") in ("dynamic", "longrope"):
        raise ModelError(
            f"{name} cannot be served by the torch engine: its positions depend on the longest sequence (`rope_type`)",
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
