"""BERT and similar encoders on a CPU without padding: all tokens of a batch are rows of one matrix.

Texts in a serving batch differ in length far more than texts in a training batch, which are grouped by length. Products
with weights are computed per token, so leaving out the padding cuts the cost of mixed messages to a third. Only
attention is computed per row, in groups of similar length. The head reads only the first token, so the last layer is
computed for that token alone. Products are in bf16 if that is faster on this machine, else in fp32. `build` checks
that the logits are close to those of the model's own forward pass.

Letters in shapes: B rows, T tokens of the longest row in a group, N tokens of all rows, W the model's width, H heads, D
= W / H.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from serve.engines.base import EngineError, ForwardEngine, check_logits_close, split_by_length
from serve.engines.encoder_weights import EncoderWeights, LayerWeights, LinearWeights, NormWeights, read_encoder
from serve.engines.torch_engines import NativeEngine, set_threads
from serve.engines.torch_internals import PackedWeight, has_packed_weights
from trainer.inference.predictor import Predictor
from trainer.optim.precision import has_fast_bf16

if TYPE_CHECKING:
    import torch

# Cost of one more group, in padded tokens. It is small: a group adds only the calls of attention in each layer.
_CALL_TOKENS = 16
# The number of tokens in a batch is padded to a multiple of this. Up to four times this many tokens, it is padded to a
# multiple of a quarter of this.
_STEP = 16
# Largest allowed change of a logit, relative to the range of the logits. Rounding to bf16 changes logits by 1 %, and a
# wrong weight by far more.
_TOLERANCE = {"bf16": 0.06, "fp32": 1e-3}


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> None:
    """Check the engine's logits. Writes no files: the engine reads the checkpoint.

    Raises `EngineError` if the model is not supported or the logits differ too much from the model's own logits.
    """
    engine = load(name, predictor, into)
    check_logits_close(engine.logits(sample), NativeEngine(predictor).logits(sample), _TOLERANCE[engine.precision])


def load(name: str, predictor: Predictor, built: Path) -> PackedEngine:
    """Return the engine. Raises `EngineError` on a GPU, for an unsupported model, and for pairs of texts."""
    if predictor.device != "cpu":
        raise EngineError("it runs on CPUs only")
    encoder = read_encoder(predictor)
    if predictor.contract.step_params("tokenize").get("second_after") is not None:
        raise EngineError("it takes single texts only, not pairs of texts")
    return PackedEngine(predictor, encoder)


class _Linear:
    """A linear layer and its activation, from (N, in) to (N, out).

    The weight is in oneDNN's own layout if this torch has the operations for it.
    """

    def __init__(self, linear: LinearWeights, dtype: torch.dtype) -> None:
        self._weight, self._bias = linear.weight.to(dtype), linear.bias.to(dtype)
        self._has_gelu = linear.activation == "gelu"
        self._packed: PackedWeight | None = None
        if has_packed_weights():
            self._packed = PackedWeight(self._weight, self._bias, gelu=self._has_gelu)
            del self._weight

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        import torch

        if self._packed is not None:
            return self._packed(values)
        product = torch.nn.functional.linear(values, self._weight, self._bias)
        return torch.nn.functional.gelu(product) if self._has_gelu else product


class _Layer(NamedTuple):
    query_key_value: _Linear
    attention_output: _Linear
    attention_norm: NormWeights
    intermediate: _Linear
    output: _Linear
    output_norm: NormWeights


class _Group(NamedTuple):
    """Adjacent rows of similar length."""

    start: int
    """Index of the group's first token among all tokens of the batch."""
    rows: int
    longest: int
    padded: torch.Tensor | None
    """Index of the token, within the group, at each padded position; None if all rows have the same length."""
    mask: torch.Tensor | None
    """Added to the attention scores, to hide padding; None if all rows have the same length."""
    real: torch.Tensor | None
    """The padded positions that hold a token; None if all rows have the same length."""


class PackedEngine(ForwardEngine):
    """Computes an encoder without padding. One product computes query, key and value; `precision` is bf16 or fp32."""

    call_tokens = _CALL_TOKENS
    owns_weights = True

    def __init__(self, predictor: Predictor, encoder: EncoderWeights) -> None:
        import torch

        self._predictor = predictor
        self.precision = "bf16" if has_fast_bf16("cpu", predictor.threads) else "fp32"
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._width, self._heads = encoder.words.shape[1], encoder.heads
        self._words, self._positions = encoder.words, encoder.positions + encoder.token_types[0]
        self._padding, self._embedding_norm = encoder.padding, encoder.embedding_norm
        self._layers = [self._convert_layer(layer) for layer in encoder.layers]
        self._head = encoder.head

    def _convert_layer(self, layer: LayerWeights) -> _Layer:
        import torch

        scale = (self._width // self._heads) ** -0.5  # folded into the query's weights: saves one pass over the scores
        query = LinearWeights(layer.query.weight * scale, layer.query.bias * scale)
        parts = (query, layer.key, layer.value)
        joined = LinearWeights(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
        return _Layer(
            _Linear(joined, self._dtype),
            _Linear(layer.attention_output, self._dtype),
            _convert_norm(layer.attention_norm, self._dtype),
            _Linear(layer.intermediate, self._dtype),
            _Linear(layer.output, self._dtype),
            _convert_norm(layer.output_norm, self._dtype),
        )

    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        import torch

        groups = split_by_length([len(ids) for ids in inputs], self.call_tokens)
        order = [row for rows in groups for row in rows]
        set_threads(self._predictor.threads)
        with torch.inference_mode():
            first_BW = self._first_tokens([inputs[row] for row in order], [len(rows) for rows in groups])
            joined = _apply_head(first_BW.float(), self._head).numpy()
        logits = np.empty_like(joined)
        logits[order] = joined
        return logits

    def _first_tokens(self, rows: list[np.ndarray], sizes: list[int]) -> torch.Tensor:
        """Return the last layer's output for each row's first token, shape (B, W).

        `rows` are sorted by group; `sizes` holds the number of rows of each group.
        """
        import torch

        F = torch.nn.functional
        lengths = np.array([len(ids) for ids in rows])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        groups = self._groups(lengths, starts, sizes)
        n_padding = _kernel_padding(int(lengths.sum()))
        ids_N = torch.from_numpy(np.concatenate([*rows, np.zeros(n_padding)]).astype(np.int64))
        positions = self._position_ids(rows, lengths, starts)
        positions_N = torch.from_numpy(np.concatenate([positions, np.zeros(n_padding, np.int64)]))
        padding = [torch.zeros(n_padding, self._width, dtype=self._dtype)] if n_padding else []
        values = F.embedding(ids_N, self._words) + F.embedding(positions_N, self._positions)
        values = _layer_norm(values, self._embedding_norm).to(self._dtype)
        for number, layer in enumerate(self._layers):
            is_last = number == len(self._layers) - 1
            projected = layer.query_key_value(values)
            parts = [self._attend(projected, group, is_last) for group in groups] + ([] if is_last else padding)
            mixed = torch.cat(parts) if len(parts) > 1 else parts[0]
            if is_last:
                values = values.index_select(0, torch.from_numpy(starts))
            values = _layer_norm(layer.attention_output(mixed).add_(values), layer.attention_norm)
            values = _layer_norm(layer.output(layer.intermediate(values)).add_(values), layer.output_norm)
        return values

    def _position_ids(self, rows: list[np.ndarray], lengths: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the position of each token, shape (N,)."""
        if self._padding is None:
            return np.arange(lengths.sum()) - np.repeat(starts, lengths)
        real = [ids != self._padding for ids in rows]
        return np.concatenate([np.cumsum(mask) * mask for mask in real]) + self._padding

    def _groups(self, lengths: np.ndarray, starts: np.ndarray, sizes: list[int]) -> list[_Group]:
        import torch

        groups, first = [], 0
        for size in sizes:
            group_lengths, group_starts = lengths[first : first + size], starts[first : first + size]
            start, longest = int(group_starts[0]), int(group_lengths.max())
            if (group_lengths == longest).all():
                groups.append(_Group(start, size, longest, None, None, None))
            else:
                token_T = np.arange(longest)
                real_BT = token_T < group_lengths[:, None]
                padded = group_starts[:, None] - start + np.minimum(token_T, group_lengths[:, None] - 1)
                mask = torch.zeros(size, 1, 1, longest, dtype=self._dtype)
                mask.masked_fill_(torch.from_numpy(~real_BT)[:, None, None], torch.finfo(self._dtype).min)
                real = torch.from_numpy(np.flatnonzero(real_BT))
                groups.append(_Group(start, size, longest, torch.from_numpy(padded.ravel()), mask, real))
            first += size
        return groups

    def _attend(self, projected: torch.Tensor, group: _Group, first_only: bool) -> torch.Tensor:
        """Return the attention output for a group's tokens, shape (N, W).

        With `first_only`, return it for the first token of each row, shape (B, W). `projected`, shape (N, 3 W), holds
        query, key and value of all tokens in the batch.
        """
        import torch

        n_tokens = group.rows * group.longest if group.real is None else len(group.real)
        flat = projected[group.start : group.start + n_tokens]
        if group.padded is not None:
            flat = flat.index_select(0, group.padded)
        by_head = flat.view(group.rows, group.longest, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = by_head
        if first_only:
            query = query[:, :, :1]
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=group.mask, scale=1.0)
        joined = mixed.transpose(1, 2).reshape(-1, self._width)
        return joined if first_only or group.real is None else joined.index_select(0, group.real)


def _kernel_padding(tokens: int) -> int:
    """Return how many padding tokens to add. oneDNN caches a kernel for each number of tokens, so use few numbers."""
    return -tokens % (_STEP if tokens > 4 * _STEP else _STEP // 4)


def _convert_norm(norm: NormWeights, dtype: torch.dtype) -> NormWeights:
    return NormWeights(norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)


def _layer_norm(values: torch.Tensor, norm: NormWeights) -> torch.Tensor:
    import torch

    return torch.nn.functional.layer_norm(values, norm.weight.shape, norm.weight, norm.bias, norm.eps)


def _apply_head(first_BW: torch.Tensor, head: list[LinearWeights]) -> torch.Tensor:
    import torch

    for linear in head:
        first_BW = torch.nn.functional.linear(first_BW, linear.weight, linear.bias)
        if linear.activation:
            activate = torch.tanh if linear.activation == "tanh" else torch.nn.functional.gelu
            first_BW = activate(first_BW)
    return first_BW
