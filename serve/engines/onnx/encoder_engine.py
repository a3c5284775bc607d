"""ONNX Runtime engines for BERT and similar encoders: the graph of `encoder_graph`, in fp32 or int8.

In the inputs of BERT's matrix products, a few channels are far larger than the others. One int8 scale for all channels
would leave few bits for the small channels. So SmoothQuant (Xiao et al., 2022) divides each channel by its own scale
and multiplies the channel's weights by the same scale. A weight has one int8 scale for each of its outputs. The
channels' scales are measured on sample rows and fixed, so the answer for a text does not depend on the other texts in
its batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cluster.errors import error_summary
from serve.engines.base import EngineError, ForwardEngine, check_logits_close
from serve.engines.encoder_weights import EncoderWeights, LinearWeights, read_encoder
from serve.engines.onnx.encoder_graph import QuantParams, build_graph, int8_product, quantized_inputs
from serve.engines.onnx.session import OnnxEngine, create_session, require_library
from serve.engines.onnx.smoothing import channel_scales
from serve.engines.torch_engines import NativeEngine
from trainer.inference.predictor import Predictor

GRAPH = "encoder.onnx"
# Values of SmoothQuant's alpha to try: the share of a channel's size that its scale removes; the weights absorb the
# rest. The value that changes logits least is used.
_SHARES = (0.75, 0.85, 0.95)
# Minimum number of sample rows: with fewer, the largest value of a channel depends too much on chance.
_MIN_ROWS = 64
# Tokens per calibration batch. It limits memory: calibration holds the inputs of all products for a whole batch.
_TOKENS = 512
# Largest allowed change of a logit, relative to the range of the logits. The metric is checked later.
_TOLERANCE = {"onnx-fp32": 1e-3, "onnx-int8": 0.25}
# Lower bound on the range of an input after scaling: a smaller range carries no information.
_TINY = 1e-4
# The graph's inputs, by their names in the task's `collate`. Token types are optional.
_REQUIRED, _TOKEN_TYPES = ("input_ids", "attention_mask"), "token_type_ids"


class OnnxEncoderEngine(OnnxEngine):
    """An ONNX Runtime session of an encoder's graph."""

    call_tokens = 16


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path) -> None:
    """Write the graph into the folder `into`.

    Raises `EngineError` if the model is not supported, if there are too few sample rows, or if the CPU saturates int8
    sums.
    """
    require_library("onnx", "onnxruntime")
    if predictor.device != "cpu":
        raise EngineError("it runs on CPUs only")
    encoder = read_encoder(predictor)
    try:
        graph = _build_graph(name, _Source(predictor, encoder, _has_token_types(predictor, sample)), sample)
    except EngineError:
        raise
    except Exception as error:  # a model whose layers differ from those of its class
        raise EngineError(f"no graph can be built from this model: {error_summary(error)}") from error
    (into / GRAPH).write_bytes(graph)


def load(predictor: Predictor, built: Path) -> ForwardEngine:
    """Return the engine for the graph in the folder `built`."""
    return OnnxEncoderEngine(predictor, create_session(built / GRAPH, predictor))


def has_exact_int8_sums(predictor: Predictor) -> bool:
    """Whether this CPU computes int8 products exactly.

    An x86 CPU without VNNI saturates the sum of two products at 16 bits. The error depends on the text.
    """
    largest = np.full((64, 64), 255, np.uint8), np.full((64, 64), 127, np.int8)
    product = create_session(int8_product(*largest).SerializeToString(), predictor).run(None, {})[0]
    return bool((product == 255 * 127.0 * 64).all())


class _Source(NamedTuple):
    """A model and its weights, from which graphs are built."""

    predictor: Predictor
    encoder: EncoderWeights
    token_types: bool

    def graph(self, params: dict[str, QuantParams] | None = None, *, calibrating: bool = False) -> bytes:
        model = build_graph(self.encoder, token_types=self.token_types, params=params, calibrating=calibrating)
        content: bytes = model.SerializeToString()
        return content

    def logits(self, graph: bytes, rows: list[np.ndarray]) -> np.ndarray:
        return OnnxEncoderEngine(self.predictor, create_session(graph, self.predictor)).logits(rows)


def _has_token_types(predictor: Predictor, sample: list[np.ndarray]) -> bool:
    """Return whether the task's batches have token types.

    Raises `EngineError` if the batches do not have the tensors that the graph takes.
    """
    batch = predictor.task.collate(predictor.contract, sample[:2])
    if set(batch) not in ({*_REQUIRED}, {*_REQUIRED, _TOKEN_TYPES}) or any(
        str(value.dtype) != "torch.int64" for value in batch.values()
    ):
        tensors = ", ".join(f"{name} ({value.dtype})" for name, value in batch.items())
        raise EngineError(f"the graph does not take the tensors of the task's batches: {tensors}")
    return _TOKEN_TYPES in batch


def _build_graph(name: str, source: _Source, sample: list[np.ndarray]) -> bytes:
    """Return the graph. For int8 too, the fp32 graph is built first; raises `EngineError` if it does not match the
    model."""
    rows = sample[:_MIN_ROWS]
    reference = NativeEngine(source.predictor).logits(rows)
    fp32 = source.graph()
    check_logits_close(source.logits(fp32, rows), reference, _TOLERANCE["onnx-fp32"])
    if name == "onnx-fp32":
        return fp32
    graphs = [source.graph(params) for params in _calibrate(source, sample)]
    results = [(source.logits(graph, rows), graph) for graph in graphs]
    logits, graph = min(results, key=lambda result: float(np.abs(result[0] - reference).mean()))
    check_logits_close(logits, reference, _TOLERANCE["onnx-int8"])
    return graph


def _calibrate(source: _Source, sample: list[np.ndarray]) -> Iterator[dict[str, QuantParams]]:
    """Yield the quantization of each quantized input, by the input's name, once for each value in `_SHARES`."""
    if len(sample) < _MIN_ROWS:
        raise EngineError(f"int8 calibration needs {_MIN_ROWS} rows, but there are only {len(sample)}")
    if not has_exact_int8_sums(source.predictor):
        raise EngineError("this CPU saturates int8 sums (it has no VNNI)")
    ranges = _channel_ranges(source, sample)
    for share in _SHARES:
        inputs = quantized_inputs(source.encoder).items()
        yield {name: _quant_params(ranges[name], linears, share) for name, linears in inputs}


def _quant_params(ranges: tuple[np.ndarray, np.ndarray], linears: list[LinearWeights], share: float) -> QuantParams:
    """Return the quantization of an input: divide the channels by their scales, then map the whole range to 0...255."""
    lowest, highest = ranges
    largest_weights = np.max([linear.weight.abs().amax(0).numpy() for linear in linears], axis=0)
    scales = channel_scales(np.maximum(highest, -lowest), largest_weights, share)
    bottom, top = min(0.0, float((lowest / scales).min())), max(0.0, float((highest / scales).max()))
    steps = 255 / max(top - bottom, _TINY)
    return QuantParams((steps / scales).astype(np.float32), round(-bottom * steps))


def _channel_ranges(source: _Source, sample: list[np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the lowest and the highest value of each channel, two arrays of shape (in,), for each quantized input."""
    names, predictor = list(quantized_inputs(source.encoder)), source.predictor
    session = create_session(source.graph(calibrating=True), predictor)
    ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for rows in _equal_length_batches(sample):
        batch = predictor.task.collate(predictor.contract, rows)
        inputs = {tensor.name: batch[tensor.name].numpy() for tensor in session.get_inputs()}
        for name, values in zip(names, session.run(names, inputs), strict=True):
            flat = values.reshape(-1, values.shape[-1])
            lowest, highest = ranges.get(name, (flat[0], flat[0]))
            ranges[name] = np.minimum(lowest, flat.min(0)), np.maximum(highest, flat.max(0))
    return ranges


def _equal_length_batches(sample: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield batches in which all rows have the same length, so that calibration sees no padding."""
    for length, group in groupby(sorted(sample, key=len), key=len):
        rows, step = list(group), max(1, _TOKENS // max(1, length))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]
