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

import numpy as np

from serve.engines.base import Engine, EngineError, must_be_near
from serve.engines.by_torch import Native
from serve.engines.encoder import Encoder, encoder_of
from serve.engines.encoder_graph import bytes_times, graph_of, places
from serve.engines.onnx_session import Onnx, library, session
from serve.engines.smooth import channel_sizes
from trainer.predictor import Predictor

GRAPH = "encoder.onnx"
# How much of a channel's size goes into its scale; the rest is left to its weights. The one that moves logits least is taken.
_SHARES = (0.65, 0.75, 0.85)
# From fewer rows a channel's largest value is a matter of luck; more than so many change little.
_FEWEST, _MOST = 64, 128
# Tokens at a time while channels are looked at: all that is multiplied is kept for so many.
_TOKENS = 512
# How far the largest logit may move of what logits are apart; what it means for the metric is looked at later.
_NEAR = {"onnx-fp32": 1e-3, "onnx-int8": 0.25}
# A channel, or a weight's input, that is never larger than this carries nothing.
_TINY = 1e-4


class OnnxEncoder(Onnx):
    """A session of the encoder's graph."""

    call_tokens = 16


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path) -> None:
    """Write the graph. Raises `EngineError` for other models, few rows, or a CPU that does not multiply bytes whole."""
    library("onnx", "onnxruntime")
    if predictor.device != "cpu":
        raise EngineError("it is for CPUs")
    encoder = encoder_of(predictor)
    pairs = predictor.contract.step("tokenize").get("second_after") is not None
    if name == "onnx-fp32":
        made = [graph_of(encoder, pairs=pairs).SerializeToString()]
    else:
        made = [
            graph_of(encoder, pairs=pairs, scales=scales).SerializeToString()
            for scales in _scales(encoder, pairs, predictor, sample)
        ]
    rows = sample[:_FEWEST]
    own = Native(predictor).logits(rows)
    found = [(OnnxEncoder(predictor, session(graph, predictor)).logits(rows), graph) for graph in made]
    logits, graph = min(found, key=lambda one: float(np.abs(one[0] - own).mean()))
    must_be_near(logits, own, _NEAR[name])
    (into / GRAPH).write_bytes(graph)


def load(predictor: Predictor, built: Path) -> Engine:
    """Return the session of the graph in `built`."""
    return OnnxEncoder(predictor, session(built / GRAPH, predictor))


def _scales(
    encoder: Encoder, pairs: bool, predictor: Predictor, sample: list[np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Return for each share the scale of each channel, shape (in,), by place: the largest value of all, scaled so, is 127."""
    if len(sample) < _FEWEST:
        raise EngineError(f"its scales take {_FEWEST} rows, and there are {len(sample)}")
    _must_be_exact(predictor)
    largest = _largest(encoder, pairs, predictor, sample[:_MOST])
    weights = {
        place: np.max([linear.weight.abs().amax(0).numpy() for linear in there], axis=0)
        for place, there in places(encoder).items()
    }
    for share in _SHARES:
        found = {}
        for place, of_values in largest.items():
            sizes = channel_sizes(of_values, weights[place], share)
            found[place] = (127 / np.maximum((of_values / sizes).max(), _TINY) / sizes).astype(np.float32)
        yield found


def _largest(encoder: Encoder, pairs: bool, predictor: Predictor, sample: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the largest size that each channel has at each place, shape (in,)."""
    names = list(places(encoder))
    seeing = session(graph_of(encoder, pairs=pairs, seen=True).SerializeToString(), predictor)
    found = {name: np.zeros(1, np.float32) for name in names}
    for rows in _alike(sample):
        batch = predictor.task.collate(predictor.contract, rows)
        feed = {one.name: batch[one.name].numpy() for one in seeing.get_inputs()}
        for name, values in zip(names, seeing.run(names, feed), strict=True):
            found[name] = np.maximum(found[name], np.abs(values).reshape(-1, values.shape[-1]).max(0))
    return found


def _alike(sample: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Return rows of one length, some at a time: what nobody reads must not be what a scale is made for."""
    for length, group in groupby(sorted(sample, key=len), key=len):
        rows, step = list(group), max(1, _TOKENS // max(1, length))
        for at in range(0, len(rows), step):
            yield rows[at : at + step]


def _must_be_exact(predictor: Predictor) -> None:
    """Raise `EngineError` where sums of bytes are cut off on their way, as without VNNI: by how much is up to the text."""
    largest = np.full((64, 64), 255, np.uint8), np.full((64, 64), 127, np.int8)
    found = session(bytes_times(*largest).SerializeToString(), predictor).run(None, {})[0]
    if not (found == (255 - 128) * 127.0 * 64).all():
        raise EngineError("this CPU cuts off sums of bytes")
