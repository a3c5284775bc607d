"""A faster forward for decoders of the Llama family: the same arithmetic as transformers' in a third of the calls.

For one token a layer's time is the reading of weights and the number of calls. So queries, keys and values are one product,
and so are the two halves of the gated layer; in float32 the norms' weights are folded into the products after them; the rotation of
queries and keys is one product of complex numbers, for which the two halves of a head are interleaved in the weights.

Letters in shapes: T tokens of a step, R rows of logits, V vocabulary, W width of the model, H heads, K heads of keys and
values, D width of a head, I inner width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainer.generation.adapters import read_adapter
from trainer.generation.cache_segments import CacheSegments
from trainer.generation.forward import cache_shape
from trainer.generation.int8 import Int8Embedding
from trainer.generation.product import Product

#: `model_type` of transformers' configs whose decoders are computed here.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
#: Kinds of rotary positions whose angles do not depend on the length of the sequence.
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
#: The linear layers of a decoder layer.
_PARTS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)


def is_fusible(model: Any) -> bool:
    """Whether `FusedForward` computes what `model` does."""
    config = model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return (
        config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and rope in _ROPE_TYPES
        and model.dtype == torch.float32
        and all(type(layer) is torch.nn.Linear for layer in model.modules() if hasattr(layer, "in_features"))
    )


class FusedForward:
    """The forward of a Llama, Mistral, Qwen 2 or Qwen 3, in float32 or int8. The model can be dropped afterwards."""

    history_tokens = 0

    def __init__(self, model: Any, *, int8: bool = False) -> None:
        self.cache_shape = cache_shape(model)
        config = model.config
        self.max_length, self.vocabulary, self.device = config.max_position_embeddings, config.vocab_size, model.device
        self._heads, self._width = config.num_attention_heads, self.cache_shape.width
        decoder = model.model
        with torch.inference_mode():
            weight = decoder.embed_tokens.weight.detach()
            self._embed = Int8Embedding(weight) if int8 else torch.nn.Embedding.from_pretrained(weight)
            self._layers = [_Layer(layer, int8) for layer in decoder.layers]
            norm = decoder.norm
            self._head = Product({"lm_head": model.lm_head}, norm.weight, int8=int8)
            self._eps = norm.variance_epsilon
            positions = torch.arange(self.max_length, device=self.device)[None]
            cos, sin = decoder.rotary_emb(torch.zeros(1, device=self.device), positions)
            half = self._width // 2
            self._rotations = torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())[:, None]

    def add_adapter(self, number: int, folder: Path) -> None:
        """Load an adapter of peft as `number`. Raises `ModelError`."""
        names = {f"model.layers.{index}.{part}" for index in range(len(self._layers)) for part in _PARTS}
        low_ranks = read_adapter(folder, names, self.device)
        for index, layer in enumerate(self._layers):
            for product in (layer.qkv, layer.out, layer.gate_up, layer.down):
                product.add_adapter(number, low_ranks, f"model.layers.{index}.")

    def drop_adapter(self, number: int) -> None:
        """Free an adapter."""
        for layer in self._layers:
            for product in (layer.qkv, layer.out, layer.gate_up, layer.down):
                product.adapters.pop(number, None)

    def __call__(self, ids_T: torch.Tensor, segments: CacheSegments, rows_R: torch.Tensor) -> torch.Tensor:
        """Return float logits (R, V) of the tokens `rows_R` of the step."""
        states_TW = self._embed(ids_T)
        rotations = self._rotations[segments.positions_T]
        for index, layer in enumerate(self._layers):
            self._attend(layer, index, states_TW, segments, rotations)
            gates = layer.gate_up(states_TW, _norm_factors(states_TW, layer.eps), segments.adapters)
            inner = gates.shape[1] // 2
            values_TI = torch.nn.functional.silu(gates[:, :inner]).mul_(gates[:, inner:])
            layer.down.add(states_TW, values_TI, segments.adapters)
        last_RW = states_TW[rows_R]
        return self._head(last_RW, _norm_factors(last_RW, self._eps))

    def _attend(
        self, layer: _Layer, index: int, states_TW: torch.Tensor, segments: CacheSegments, rotations: torch.Tensor
    ) -> None:
        """Add the layer's attention to the states."""
        heads, kv_heads, width = self._heads, self.cache_shape.heads, self._width
        mixed = layer.qkv(states_TW, _norm_factors(states_TW, layer.eps), segments.adapters)
        mixed = mixed.view(-1, heads + 2 * kv_heads, width)
        if layer.head_norms is not None:
            turned = mixed[:, : heads + kv_heads]
            factors = torch.rsqrt(turned.square().mean(-1, keepdim=True).add_(layer.head_eps))
            turned.mul_(factors).mul_(layer.head_norms)
        turned = mixed[:, : heads + kv_heads].unflatten(-1, (width // 2, 2))
        torch.view_as_complex(turned).mul_(rotations)
        segments.cache.rows[index].index_copy_(0, segments.joint_rows, mixed[:, heads:].reshape(-1, width))
        output = segments.attend_cached(index, mixed[:, :heads], width**-0.5, layer.window)
        layer.out.add(states_TW, output.reshape(-1, heads * width), segments.adapters)


class _Layer:
    """The weights of one decoder layer."""

    def __init__(self, layer: Any, int8: bool) -> None:
        attention = layer.self_attn
        self.eps = layer.input_layernorm.variance_epsilon
        self.window: int | None = getattr(attention, "sliding_window", None)
        if self.window is None and getattr(attention, "layer_type", "") != "full_attention":
            self.window = getattr(attention.config, "sliding_window", None)
        width = attention.head_dim
        order = interleaved(width)
        parts = {name: layer.get_submodule(name) for name in _PARTS}
        query, key, value, out, gate, up, down = ({name: part} for name, part in parts.items())
        orders = {"self_attn.q_proj": order, "self_attn.k_proj": order}
        self.qkv = Product(query | key | value, layer.input_layernorm.weight, orders, int8=int8)
        self.out = Product(out, int8=int8)
        self.gate_up = Product(gate | up, layer.post_attention_layernorm.weight, int8=int8)
        self.down = Product(down, int8=int8)
        self.head_norms = None
        if hasattr(attention, "q_norm"):
            n_query = attention.q_proj.out_features // width
            n_key = attention.k_proj.out_features // width
            of_query, of_key = attention.q_norm.weight.detach()[order], attention.k_norm.weight.detach()[order]
            self.head_norms = torch.cat([of_query.expand(n_query, -1), of_key.expand(n_key, -1)])
            self.head_eps = attention.q_norm.variance_epsilon


def interleaved(width: int) -> torch.Tensor:
    """Return the order of a head's numbers in which the two that are rotated together are neighbors."""
    return torch.arange(width).view(2, -1).T.reshape(-1)


def _norm_factors(states_TW: torch.Tensor, eps: float) -> torch.Tensor:
    """Return what a root-mean-square norm multiplies each token with, (T, 1)."""
    squares = torch.linalg.vector_norm(states_TW, 2, -1, keepdim=True).square_()
    return squares.mul_(1 / states_TW.shape[-1]).add_(eps).rsqrt_()
