"""The model types of transformers that can be written as GGUF, and their settings and tensors in llama.cpp's terms.

llama.cpp computes an architecture by name, so only model types whose computation it has are here. Everything in a
config that llama.cpp would compute in another way is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cluster.errors import ModelError


class Architecture(NamedTuple):
    """How GGUF holds one model type."""

    name: str
    """The architecture's name in GGUF."""
    has_permuted_rope: bool
    """Whether llama.cpp rotates neighboring pairs of a head's values, so that rows of queries and keys are reordered."""


#: `model_type` of transformers -> its form in GGUF.
ARCHITECTURES = {
    "llama": Architecture("llama", has_permuted_rope=True),
    "mistral": Architecture("llama", has_permuted_rope=True),
    "qwen2": Architecture("qwen2", has_permuted_rope=False),
    "qwen3": Architecture("qwen3", has_permuted_rope=False),
}
#: Name of a tensor in transformers -> its name in GGUF; `{}` is the number of the layer.
_TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm.weight": "blk.{}.attn_norm.weight",
    "post_attention_layernorm.weight": "blk.{}.ffn_norm.weight",
    "self_attn.q_norm.weight": "blk.{}.attn_q_norm.weight",
    "self_attn.k_norm.weight": "blk.{}.attn_k_norm.weight",
}
_LINEAR = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER_PREFIX = "model.layers."
_KNOWN_ROPE = ("default", "linear", "llama3")


class CausalConfig:
    """The settings of a causal model that GGUF needs, read from the `config.json` of transformers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises `ModelError` if llama.cpp would compute the model in another way than transformers."""
        self._config = config
        model_type = config.get("model_type", "")
        if model_type not in ARCHITECTURES:
            raise ModelError(
                f"models of type '{model_type}' cannot be written as GGUF",
                f"export it with `--to hf`; GGUF is written for {', '.join(ARCHITECTURES)}",
            )
        self.architecture = ARCHITECTURES[model_type]
        self.n_layers = int(config["num_hidden_layers"])
        self.n_heads = int(config["num_attention_heads"])
        self.n_key_heads = int(config.get("num_key_value_heads") or self.n_heads)
        self.head_width = int(config.get("head_dim") or config["hidden_size"] // self.n_heads)
        self.vocabulary_size = int(config["vocab_size"])
        self.max_length = int(config["max_position_embeddings"])
        # transformers 5 writes `rope_parameters`, transformers 4 `rope_theta` and `rope_scaling`.
        self._rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        self.rope_type = self._rope.get("rope_type") or self._rope.get("type") or "default"
        self._refuse_what_differs()

    def _refuse_what_differs(self) -> None:
        config = self._config
        refused = []
        if config.get("hidden_act", "silu") != "silu":
            refused.append(f"hidden_act is {config['hidden_act']}, not silu")
        if config.get("mlp_bias"):
            refused.append("its feed-forward layers have biases")
        if self.rope_type not in _KNOWN_ROPE:
            refused.append(f"rope_type is {self.rope_type}, which is none of {', '.join(_KNOWN_ROPE)}")
        window = config.get("sliding_window")
        if window and config.get("use_sliding_window", True) and window < self.max_length:
            refused.append(f"its attention is limited to a sliding window of {window:,} tokens")
        if refused:
            raise ModelError(f"this model cannot be written as GGUF: {'; '.join(refused)}", "export it with `--to hf`")

    def settings(self) -> dict[str, int | float | str]:
        """Return the architecture's keys of a GGUF file, without the architecture's name before each."""
        config = self._config
        settings: dict[str, int | float | str] = {
            "context_length": self.max_length,
            "embedding_length": int(config["hidden_size"]),
            "feed_forward_length": int(config["intermediate_size"]),
            "block_count": self.n_layers,
            "vocab_size": self.vocabulary_size,
            "attention.head_count": self.n_heads,
            "attention.head_count_kv": self.n_key_heads,
            "attention.key_length": self.head_width,
            "attention.value_length": self.head_width,
            "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
            "rope.dimension_count": self.head_width,
            "rope.freq_base": self._rope_theta(),
        }
        if self.rope_type == "linear":
            settings |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(self._rope["factor"])}
        return settings

    def rope_factors(self) -> np.ndarray | None:
        """Return what llama.cpp divides each frequency by, float32 (D / 2,), for `llama3`; None for other types."""
        if self.rope_type != "llama3":
            return None
        rope = self._rope
        frequencies = self._rope_theta() ** -(np.arange(0, self.head_width, 2) / self.head_width)
        waves = 2 * math.pi / frequencies
        original = rope["original_max_position_embeddings"]
        low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
        smooth = np.clip((original / waves - low) / (high - low), 0, 1)
        factors: np.ndarray = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
        return factors

    def tensor_name(self, name: str) -> str:
        """Return the name in GGUF of a tensor of transformers. Raises `ModelError` if there is none."""
        if name in _TENSORS:
            return _TENSORS[name]
        if name.startswith(_LAYER_PREFIX):
            layer, _, rest = name.removeprefix(_LAYER_PREFIX).partition(".")
            module, _, kind = rest.rpartition(".")
            if rest in _TENSORS:
                return _TENSORS[rest].format(layer)
            if module in _LINEAR and kind in ("weight", "bias"):
                return f"blk.{layer}.{_LINEAR[module]}.{kind}"
        raise ModelError(f"the weight '{name}' has no name in GGUF", "export the model with `--to hf`")

    def convert(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return a tensor's values in llama.cpp's order; `name` is that of transformers."""
        if not self.architecture.has_permuted_rope or ".self_attn." not in name:
            return values
        if ".q_proj." in name:
            return _interleave_halves(values, self.n_heads)
        return _interleave_halves(values, self.n_key_heads) if ".k_proj." in name else values

    def _rope_theta(self) -> float:
        return float(self._rope.get("rope_theta") or self._config.get("rope_theta") or 10_000.0)


def _interleave_halves(values: np.ndarray, n_heads: int) -> np.ndarray:
    """Return the rows of `values` (n_heads * D, ...) with each head's halves interleaved.

    transformers rotates value i with value i + D / 2 of a head, llama.cpp value 2 i with value 2 i + 1.
    """
    halves = values.reshape(n_heads, 2, values.shape[0] // n_heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
