"""BERT and its relatives on a CPU without padding: all tokens of a batch lie in one matrix, row after row.

Texts of a batch differ in length by far more than those of a training step that was grouped by length, and every
multiplication with a weight goes by the token: without padding a batch of mixed messages costs a third. Attention alone goes
by the row, in groups of like length. The head reads the first token, so the last layer is computed for that token alone.
Multiplies in bf16 where that is faster here, else in fp32; what comes out is held against the model's own logits first.

Letters in shapes: B rows, T tokens of the longest in a group, N tokens of all rows, W the model's width, H heads, D = W / H.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from serve.engines.base import Engine, EngineError, must_be_near, split_by_length
from serve.engines.encoder_weights import Encoder, Linear, Norm, encoder_of
from serve.engines.encoder_weights import Layer as EncoderLayer
from serve.engines.torch_engines import Native, use_threads_of
from trainer.inference.predictor import Predictor
from trainer.optim.precision import has_fast_bf16

if TYPE_CHECKING:
    import torch

# A group more costs attention's calls in every layer, which is little.
_CALL_TOKENS = 16
# The number of tokens is made up to a multiple of this; of a quarter of it where there are few.
_STEP = 16
# How far the largest logit may move of what logits are apart: rounding to bf16 moves them by 1 %, a wrong weight by far more.
_NEAR = {"bf16": 0.06, "fp32": 1e-3}


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> None:
    """Nothing is written; raises `EngineError` where this is none of the models it knows, or computes something else."""
    engine = load(name, predictor, into)
    must_be_near(engine.logits(sample), Native(predictor).logits(sample), _NEAR[engine.precision])


def load(name: str, predictor: Predictor, built: Path) -> Packed:
    """Return the engine of a model it knows."""
    if predictor.device != "cpu":
        raise EngineError("it is for CPUs")
    encoder = encoder_of(predictor)
    if predictor.contract.step("tokenize").get("second_after") is not None:
        raise EngineError("it is for single texts")
    return Packed(predictor, encoder)


class _Multiply:
    """A multiplication with a weight, (N, in) to (N, out), which oneDNN has laid out for itself beforehand.

    Else it would do so in each call, which for one short text takes longer than multiplying.
    """

    def __init__(self, linear: Linear, dtype: torch.dtype) -> None:
        import torch

        weight, self._bias, self._gelu = linear.weight.to(dtype), linear.bias.to(dtype), linear.then == "gelu"
        self._after: tuple[Any, ...] = ("gelu", [], "none") if self._gelu else ("none", [], "")
        ops = torch.ops.mkldnn
        self._multiply: Any = (
            getattr(ops, "_linear_pointwise", None) if hasattr(ops, "_reorder_linear_weight") else None
        )
        self._weight = ops._reorder_linear_weight(weight, None) if self._multiply else weight

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        import torch

        if self._multiply is not None:
            laid_out: torch.Tensor = self._multiply(values, self._weight, self._bias, *self._after)
            return laid_out
        found = torch.nn.functional.linear(values, self._weight, self._bias)
        return torch.nn.functional.gelu(found) if self._gelu else found


class _Layer(NamedTuple):
    query_key_value: _Multiply
    after_attention: _Multiply
    attention_norm: Norm
    widen: _Multiply
    narrow: _Multiply
    norm: Norm


class _Group(NamedTuple):
    """Rows of like length, which lie side by side."""

    start: int
    """Their first token among all."""
    rows: int
    longest: int
    padded: torch.Tensor | None
    """Which token goes to each padded place; None where all are equally long."""
    mask: torch.Tensor | None
    real: torch.Tensor | None
    """The padded places that hold a token."""


class Packed(Engine):
    """The encoder's weights side by side, in the matrices' own precision."""

    call_tokens = _CALL_TOKENS
    keeps_its_own_weights = True

    def __init__(self, predictor: Predictor, encoder: Encoder) -> None:
        import torch

        self._predictor = predictor
        self.precision = "bf16" if has_fast_bf16("cpu", predictor.threads) else "fp32"
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._width, self._heads = encoder.words.shape[1], encoder.heads
        self._words, self._positions = encoder.words, encoder.positions + encoder.kinds[0]
        self._padding, self._words_norm = encoder.padding, encoder.words_norm
        self._layers = [self._layer(layer) for layer in encoder.layers]
        self._head = encoder.head

    def _layer(self, layer: EncoderLayer) -> _Layer:
        import torch

        scale = (self._width // self._heads) ** -0.5  # in the query's weights: one pass over the scores less
        query = Linear(layer.query.weight * scale, layer.query.bias * scale)
        parts = (query, layer.key, layer.value)
        together = Linear(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
        return _Layer(
            _Multiply(together, self._dtype),
            _Multiply(layer.after_attention, self._dtype),
            _to(layer.attention_norm, self._dtype),
            _Multiply(layer.widen, self._dtype),
            _Multiply(layer.narrow, self._dtype),
            _to(layer.norm, self._dtype),
        )

    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        import torch

        by_length = split_by_length([len(ids) for ids in inputs], self.call_tokens)
        order = [row for rows in by_length for row in rows]
        use_threads_of(self._predictor)
        with torch.inference_mode():
            first_BW = self._first_tokens([inputs[row] for row in order], [len(rows) for rows in by_length])
            joined = _of_head(first_BW.float(), self._head).numpy()
        found = np.empty_like(joined)
        found[order] = joined
        return found

    def _first_tokens(self, rows: list[np.ndarray], sizes: list[int]) -> torch.Tensor:
        """Return the first token of the last layer, shape (B, W), of rows whose groups have `sizes`."""
        import torch

        F = torch.nn.functional
        lengths = np.array([len(ids) for ids in rows])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        groups = self._groups(lengths, starts, sizes)
        spare = _spare(int(lengths.sum()))
        ids_N = torch.from_numpy(np.concatenate([*rows, np.zeros(spare)]).astype(np.int64))
        places = self._places(rows, lengths, starts)
        places_N = torch.from_numpy(np.concatenate([places, np.zeros(spare, np.int64)]))
        of_spare = [torch.zeros(spare, self._width, dtype=self._dtype)] if spare else []
        values = F.embedding(ids_N, self._words) + F.embedding(places_N, self._positions)
        values = _normed(values, self._words_norm).to(self._dtype)
        for number, layer in enumerate(self._layers):
            last = number == len(self._layers) - 1
            asked = layer.query_key_value(values)
            parts = [self._attended(asked, group, last) for group in groups] + ([] if last else of_spare)
            mixed = torch.cat(parts) if len(parts) > 1 else parts[0]
            if last:
                values = values.index_select(0, torch.from_numpy(starts))
            values = _normed(layer.after_attention(mixed).add_(values), layer.attention_norm)
            values = _normed(layer.narrow(layer.widen(values)).add_(values), layer.norm)
        return values

    def _places(self, rows: list[np.ndarray], lengths: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the position of each token, shape (N,)."""
        if self._padding is None:
            return np.arange(lengths.sum()) - np.repeat(starts, lengths)
        real = [ids != self._padding for ids in rows]
        return np.concatenate([np.cumsum(of_row) * of_row for of_row in real]) + self._padding

    def _groups(self, lengths: np.ndarray, starts: np.ndarray, sizes: list[int]) -> list[_Group]:
        import torch

        groups, at = [], 0
        for size in sizes:
            of_group, begins = lengths[at : at + size], starts[at : at + size]
            longest = int(of_group.max())
            if (of_group == longest).all():
                groups.append(_Group(int(begins[0]), size, longest, None, None, None))
            else:
                places_T = np.arange(longest)
                real_BT = places_T < of_group[:, None]
                padded = begins[:, None] - begins[0] + np.minimum(places_T, of_group[:, None] - 1)
                mask = torch.zeros(size, 1, 1, longest, dtype=self._dtype)
                mask.masked_fill_(torch.from_numpy(~real_BT)[:, None, None], torch.finfo(self._dtype).min)
                real = torch.from_numpy(np.flatnonzero(real_BT))
                groups.append(_Group(int(begins[0]), size, longest, torch.from_numpy(padded.ravel()), mask, real))
            at += size
        return groups

    def _attended(self, asked: torch.Tensor, group: _Group, first_only: bool) -> torch.Tensor:
        """Return what attention makes of a group's tokens, shape (N, W), or of their first ones, shape (B, W).

        `asked`, shape (N, 3 W), are query, key and value of all tokens.
        """
        import torch

        n_tokens = group.rows * group.longest if group.real is None else len(group.real)
        flat = asked[group.start : group.start + n_tokens]
        if group.padded is not None:
            flat = flat.index_select(0, group.padded)
        by_head = flat.view(group.rows, group.longest, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = by_head
        if first_only:
            query = query[:, :, :1]
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=group.mask, scale=1.0)
        joined = found.transpose(1, 2).reshape(-1, self._width)
        return joined if first_only or group.real is None else joined.index_select(0, group.real)


def _spare(tokens: int) -> int:
    """Return how many tokens that nobody reads go along: oneDNN makes, and keeps, a kernel for each number of rows."""
    return -tokens % (_STEP if tokens > 4 * _STEP else _STEP // 4)


def _to(norm: Norm, dtype: torch.dtype) -> Norm:
    return Norm(norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)


def _normed(values: torch.Tensor, norm: Norm) -> torch.Tensor:
    import torch

    return torch.nn.functional.layer_norm(values, norm.weight.shape, norm.weight, norm.bias, norm.eps)


def _of_head(first_BW: torch.Tensor, head: list[Linear]) -> torch.Tensor:
    import torch

    for linear in head:
        first_BW = torch.nn.functional.linear(first_BW, linear.weight, linear.bias)
        if linear.then:
            first_BW = torch.tanh(first_BW) if linear.then == "tanh" else torch.nn.functional.gelu(first_BW)
    return first_BW
