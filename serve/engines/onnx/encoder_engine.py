"""Engines of ONNX Runtime for BERT and its relatives: the graph of `encoder_graph`, in fp32 or int8.

A few channels of what BERT's layers multiply are far larger than the others, and one scale for all of them leaves these few
bits. So each channel is divided by a scale of its own and its weights are multiplied by it (SmoothQuant, Xiao et al., 2022),
and each output of a weight has a scale. The channels' scales come from sample rows once and do not change with the request:
what a text is answered does not depend on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serve.engines.base import Engine, EngineError, must_be_near, one_line
from serve.engines.encoder_weights import Encoder, Linear, encoder_of
from serve.engines.onnx.encoder_graph import Bytes, bytes_times, graph_of, places
from serve.engines.onnx.session import Onnx, library, session
from serve.engines.onnx.smoothing import channel_sizes
from serve.engines.torch_engines import Native
from trainer.inference.predictor import Predictor

GRAPH = "encoder.onnx"
# How much of a channel's size goes into its scale; the rest is left to its weights. The one that moves logits least is taken.
_SHARES = (0.75, 0.85, 0.95)
# From fewer rows a channel's largest value is a matter of luck.
_FEWEST = 64
# Tokens at a time while channels are looked at: all that is multiplied is kept for so many.
_TOKENS = 512
# How far the largest logit may move of what logits are apart; what it means for the metric is looked at later.
_NEAR = {"onnx-fp32": 1e-3, "onnx-int8": 0.25}
# A place whose values are never further apart than this, each channel divided by its size, carries nothing.
_TINY = 1e-4
# What the graph takes of the task's `collate`.
_TAKEN, _KINDS = ("input_ids", "attention_mask"), "token_type_ids"


class OnnxEncoder(Onnx):
    """A session of the encoder's graph."""

    call_tokens = 16


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path) -> None:
    """Write the graph. Raises `EngineError` for other models, few rows, or a CPU that does not multiply bytes whole."""
    library("onnx", "onnxruntime")
    if predictor.device != "cpu":
        raise EngineError("it is for CPUs")
    encoder = encoder_of(predictor)
    try:
        graph = _built(name, _Made(predictor, encoder, _takes_pairs(predictor, sample)), sample)
    except EngineError:
        raise
    except Exception as error:  # of a model that is not what its class says
        raise EngineError(f"no graph can be made of it: {one_line(error)}") from error
    (into / GRAPH).write_bytes(graph)


def load(predictor: Predictor, built: Path) -> Engine:
    """Return the session of the graph in `built`."""
    return OnnxEncoder(predictor, session(built / GRAPH, predictor))


class _Made(NamedTuple):
    """What graphs are made of."""

    predictor: Predictor
    encoder: Encoder
    pairs: bool

    def graph(self, bytes_of: dict[str, Bytes] | None = None, *, seen: bool = False) -> bytes:
        model = graph_of(self.encoder, pairs=self.pairs, bytes_of=bytes_of, seen=seen)
        found: bytes = model.SerializeToString()
        return found

    def logits(self, graph: bytes, rows: list[np.ndarray]) -> np.ndarray:
        return OnnxEncoder(self.predictor, session(graph, self.predictor)).logits(rows)


def _takes_pairs(predictor: Predictor, sample: list[np.ndarray]) -> bool:
    """Return whether tokens have kinds. Raises `EngineError` where the task gives its model what the graph does not take."""
    batch = predictor.task.collate(predictor.contract, sample[:2])
    if set(batch) not in ({*_TAKEN}, {*_TAKEN, _KINDS}) or any(
        str(value.dtype) != "torch.int64" for value in batch.values()
    ):
        given = ", ".join(f"{name} ({value.dtype})" for name, value in batch.items())
        raise EngineError(f"its task gives it {given}")
    return _KINDS in batch


def _built(name: str, made: _Made, sample: list[np.ndarray]) -> bytes:
    """Return the graph. In fp32 it must compute what the model does, also where it is then made int8."""
    rows = sample[:_FEWEST]
    own = Native(made.predictor).logits(rows)
    plain = made.graph()
    must_be_near(made.logits(plain, rows), own, _NEAR["onnx-fp32"])
    if name == "onnx-fp32":
        return plain
    graphs = [made.graph(way) for way in _ways(made, sample)]
    found = [(made.logits(graph, rows), graph) for graph in graphs]
    logits, graph = min(found, key=lambda one: float(np.abs(one[0] - own).mean()))
    must_be_near(logits, own, _NEAR["onnx-int8"])
    return graph


def _ways(made: _Made, sample: list[np.ndarray]) -> Iterator[dict[str, Bytes]]:
    """Return for each share how values become bytes at each place."""
    if len(sample) < _FEWEST:
        raise EngineError(f"its scales take {_FEWEST} rows, and there are {len(sample)}")
    if not multiplies_whole(made.predictor):
        raise EngineError("this CPU cuts off sums of bytes")
    ranges = _ranges(made, sample)
    for share in _SHARES:
        yield {place: _bytes(ranges[place], linears, share) for place, linears in places(made.encoder).items()}


def _bytes(of_channels: tuple[np.ndarray, np.ndarray], linears: list[Linear], share: float) -> Bytes:
    """Return how values become bytes: all that was seen, each channel divided by its size, from the least to the greatest."""
    lowest, highest = of_channels
    of_weights = np.max([linear.weight.abs().amax(0).numpy() for linear in linears], axis=0)
    sizes = channel_sizes(np.maximum(highest, -lowest), of_weights, share)
    bottom, top = min(0.0, float((lowest / sizes).min())), max(0.0, float((highest / sizes).max()))
    steps = 255 / max(top - bottom, _TINY)
    return Bytes((steps / sizes).astype(np.float32), round(-bottom * steps))


def _ranges(made: _Made, sample: list[np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the lowest and the highest value that each channel has at each place, shape (in,)."""
    names, predictor = list(places(made.encoder)), made.predictor
    seeing = session(made.graph(seen=True), predictor)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for rows in _alike(sample):
        batch = predictor.task.collate(predictor.contract, rows)
        feed = {one.name: batch[one.name].numpy() for one in seeing.get_inputs()}
        for name, values in zip(names, seeing.run(names, feed), strict=True):
            flat = values.reshape(-1, values.shape[-1])
            lowest, highest = found.get(name, (flat[0], flat[0]))
            found[name] = np.minimum(lowest, flat.min(0)), np.maximum(highest, flat.max(0))
    return found


def _alike(sample: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Return rows of one length, some at a time: what nobody reads must not be what a scale is made for."""
    for length, group in groupby(sorted(sample, key=len), key=len):
        rows, step = list(group), max(1, _TOKENS // max(1, length))
        for at in range(0, len(rows), step):
            yield rows[at : at + step]


def multiplies_whole(predictor: Predictor) -> bool:
    """Whether sums of bytes are not cut off on their way, as without VNNI: by how much is up to the text."""
    largest = np.full((64, 64), 255, np.uint8), np.full((64, 64), 127, np.int8)
    found = session(bytes_times(*largest).SerializeToString(), predictor).run(None, {})[0]
    return bool((found == 255 * 127.0 * 64).all())
