"""raymill's own small decoder, for training from scratch on CPUs in minutes.

A decoder with rotary positions, normalized queries and keys, squared ReLU and norms without weights. Beside the embedding
of the token itself it adds rows of hashed n-gram tables: what follows the last few tokens is looked up instead of
computed, and a row costs no arithmetic. docs/explanation/decoder.md has the sources.

Letters in shapes: B batch, T tokens, D width of the model, H heads, W width of a head, N tokens of history.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import layer_norm
from transformers import PreTrainedModel
from transformers.initialization import normal_, ones_
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainer.models.decoder.config import RaymillDecoderConfig
from trainer.models.decoder.ngrams import ngram_rows, packed_history

# Standard deviations of new weights. What adds to the states, and the output layer, begin at zero: each layer begins as
# the identity and all tokens as equally probable.
_EMBEDDING_STD, _TABLE_STD, _LINEAR_STD = 1.0, 0.0, 0.7
_STD = "initial_std"  # the attribute of a layer that holds its own


class SquaredReLU(torch.autograd.Function):
    """`relu(x) ** 2`, which stores one tensor for the backward pass instead of two."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        positive = torch.relu(values)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (positive,) = ctx.saved_tensors
        return (gradients[0] * positive).mul_(2.0)


class Rotate(torch.autograd.Function):
    """Rotates pairs of neighboring numbers by an angle that grows with the position (RoPE); its inverse goes backward."""

    @staticmethod
    def forward(ctx: Any, states_BTHW: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(turns)
        return _turn(states_BTHW, turns)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (turns,) = ctx.saved_tensors
        return _turn(gradients[0], turns.conj().resolve_conj()), None


def _turn(states_BTHW: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(states_BTHW.float().contiguous().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).to(states_BTHW.dtype)


def _linear(inputs: int, outputs: int, std: float = _LINEAR_STD) -> nn.Linear:
    """Return a matrix without bias; new ones have the standard deviation `std / sqrt(inputs)`."""
    layer = nn.Linear(inputs, outputs, bias=False)
    vars(layer)[_STD] = std * inputs**-0.5
    return layer


def _embedding(rows: int, width: int, std: float) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    vars(table)[_STD] = std
    return table


def _normalize(states: torch.Tensor) -> torch.Tensor:
    # torch's layer norm is one fused operation forward and one backward; its RMS norm is several on CPUs.
    return layer_norm(states, states.shape[-1:])


class Attention(nn.Module):
    """Causal attention with normalized queries and keys."""

    def __init__(self, config: RaymillDecoderConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx, self.head_dim = config, layer_idx, config.head_dim
        self.is_causal, self.num_key_value_groups = True, 1
        width = config.hidden_size
        self.q_proj = _linear(width, width)
        self.k_proj = _linear(width, width)
        self.v_proj = _linear(width, width)
        self.o_proj = _linear(width, width, std=0.0)
        self.q_scale = nn.Parameter(torch.ones(config.head_dim))

    def forward(self, states_BTD: torch.Tensor, turns: torch.Tensor, mask: Any, **options: Any) -> torch.Tensor:
        heads = (*states_BTD.shape[:-1], -1, self.head_dim)
        query = layer_norm(self.q_proj(states_BTD).view(heads), (self.head_dim,), self.q_scale)
        key = _normalize(self.k_proj(states_BTD).view(heads))
        query, key = Rotate.apply(query, turns), Rotate.apply(key, turns)
        value = self.v_proj(states_BTD).view(heads)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, sdpa_attention_forward)
        output_BTHW, _ = attend(
            self,
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            mask,
            scaling=self.head_dim**-0.5,
            sliding_window=self.config.sliding_window,
            **options,
        )
        output: torch.Tensor = self.o_proj(output_BTHW.reshape(states_BTD.shape))
        return output


class FeedForward(nn.Module):
    """Two matrices with a squared ReLU between them."""

    def __init__(self, config: RaymillDecoderConfig) -> None:
        super().__init__()
        self.up_proj = _linear(config.hidden_size, config.intermediate_size)
        self.down_proj = _linear(config.intermediate_size, config.hidden_size, std=0.0)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.down_proj(SquaredReLU.apply(self.up_proj(states)))
        return output


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each added to the states."""

    def __init__(self, config: RaymillDecoderConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer_idx)
        self.mlp = FeedForward(config)

    def forward(self, states_BTD: torch.Tensor, turns: torch.Tensor, mask: Any, **options: Any) -> torch.Tensor:
        states_BTD = states_BTD + self.self_attn(_normalize(states_BTD), turns, mask, **options)
        return states_BTD + self.mlp(_normalize(states_BTD))


class NgramEmbedding(nn.Module):
    """Tables of n-grams: the sum of the rows that the last tokens choose, one row of each table."""

    def __init__(self, config: RaymillDecoderConfig) -> None:
        super().__init__()
        self.sizes, self.n_rows, self.dropout = config.ngram_sizes, config.ngram_rows, config.ngram_dropout
        self.tables = nn.ModuleList(_embedding(rows, config.hidden_size, _TABLE_STD) for rows in self.n_rows)

    def forward(self, ids_BT: torch.Tensor, history_BTN: torch.Tensor) -> list[torch.Tensor]:
        rows = ngram_rows(ids_BT, history_BTN, self.sizes, self.n_rows)
        return [self._drop(table(row_BT)) for table, row_BT in zip(self.tables, rows, strict=True)]

    def _drop(self, states_BTD: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.dropout:
            return states_BTD
        is_left = torch.rand(states_BTD.shape[:-1], device=states_BTD.device) >= self.dropout
        return states_BTD * is_left.to(states_BTD.dtype)[..., None]


class DecoderPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of the decoder."""

    config: RaymillDecoderConfig
    config_class = RaymillDecoderConfig
    base_model_prefix = "model"
    _supports_attention_backend = True
    _supports_sdpa = True
    _no_split_modules = ["DecoderLayer"]  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Attention):
            ones_(module.q_scale)
        elif isinstance(module, nn.Embedding | nn.Linear):
            normal_(module.weight, std=vars(module)[_STD])


class RaymillDecoder(DecoderPreTrainedModel):
    """The decoder without its output layer."""

    def __init__(self, config: RaymillDecoderConfig) -> None:
        super().__init__(config)
        self.embed_tokens = _embedding(config.vocab_size, config.hidden_size, _EMBEDDING_STD)
        self.ngrams = NgramEmbedding(config)
        self.layers = nn.ModuleList(DecoderLayer(config, number) for number in range(config.num_hidden_layers))
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        history_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPast:
        """Return the last states (B, T, D) of `input_ids` (B, T).

        `history_ids` (B, T, N): the `config.history_tokens` tokens before each token of its own sequence, the nearest
        first, `NO_TOKEN` where there is none; needed where sequences are continued from a cache. Without it, each
        sequence begins where `position_ids` is 0. Padding is allowed on the right only.
        """
        options.pop("use_cache", None)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        if history_ids is None:
            history_ids = packed_history(input_ids, position_ids, self.config.history_tokens)
        states_BTD = self.embed_tokens(input_ids)
        for rows_BTD in self.ngrams(input_ids, history_ids):
            states_BTD = states_BTD + rows_BTD
        states_BTD = _normalize(states_BTD)
        turns = self._turns(position_ids)
        mask = None if "segments" in options else self._mask(input_ids.shape[1], input_ids.device)
        for layer in self.layers:
            states_BTD = layer(states_BTD, turns, mask, **options)
        return BaseModelOutputWithPast(last_hidden_state=_normalize(states_BTD))

    def _turns(self, position_ids: torch.Tensor) -> torch.Tensor:
        """Return the rotations of each position as complex numbers: (B, T, 1, W / 2)."""
        half = torch.arange(0, self.config.head_dim, 2, device=position_ids.device) / self.config.head_dim
        angles = position_ids[..., None, None].float() * self.config.rope_theta**-half
        return torch.polar(torch.ones_like(angles), angles)

    def _mask(self, length: int, device: torch.device) -> torch.Tensor | None:
        """Return which keys each query sees (T, T), or None if all before it: for calls without segments."""
        window = self.config.sliding_window
        if window is None or window >= length:
            return None
        positions = torch.arange(length, device=device)
        distances = positions[:, None] - positions[None]
        return (distances >= 0) & (distances < window)


class RaymillDecoderForCausalLM(DecoderPreTrainedModel):
    """The decoder with its output layer."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: RaymillDecoderConfig) -> None:
        super().__init__(config)
        self.model = RaymillDecoder(config)
        self.lm_head = _linear(config.hidden_size, config.vocab_size, std=0.0)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits (B, T, V), and the loss of `labels` as transformers defines it.

        `logits_to_keep`: logits of the last so many tokens only, or of the tokens with these indices; 0 for all.
        """
        states_BTD = self.model(input_ids, **options).last_hidden_state
        shown = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_head(states_BTD[:, shown])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits_BTV, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits_BTV)
