"""SmoothQuant (Xiao et al., 2022) for an ONNX graph: scale channels to similar size, so that int8 loses less accuracy.

ONNX Runtime quantizes the whole input of a matrix product with one scale, but a few channels of the input are far
larger than the others. So each channel is divided by its own scale, and the channel's weights are multiplied by the
same scale. The product stays the same, and both factors lose less to 8 bits. An input that several products share is
divided once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# SmoothQuant's alpha: the share of a channel's size that its scale removes; the channel's weights absorb the rest.
_SHARE = 0.75
# Lower bound on sizes of channels and weights, so that no scale is zero or infinite.
_TINY = 1e-4
# Operations whose second input is a weight, shape (in, out).
_PRODUCTS = ("MatMul", "Attention")
_FLOAT32 = 1


def smooth_quant(path: Path, batches: list[dict[str, np.ndarray]]) -> None:
    """Smooth the graph in the file `path`. `batches` are inputs of the graph, on which the channels are measured."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    by_input: dict[str, list[np.ndarray]] = {}
    for node in model.graph.node:
        if _is_product(node, weights):
            by_input.setdefault(node.input[0], []).append(numpy_helper.to_array(weights[node.input[1]]))
    largest = _largest_values(path, list(by_input), batches)
    scales = {name: _input_scales(largest[name], arrays) for name, arrays in by_input.items()}
    nodes, divided, replaced = [], set(), set()
    for node in model.graph.node:
        if _is_product(node, weights):
            name, weight = node.input[0], node.input[1]
            if name not in divided:
                divided.add(name)
                model.graph.initializer.append(numpy_helper.from_array(1 / scales[name], f"{name}_scale"))
                nodes.append(helper.make_node("Mul", [name, f"{name}_scale"], [f"{name}_smooth"]))
            array = numpy_helper.to_array(weights[weight]) * scales[name][:, None]
            model.graph.initializer.append(numpy_helper.from_array(array, f"{weight}_{name}"))
            replaced.add(weight)
            node.input[0], node.input[1] = f"{name}_smooth", f"{weight}_{name}"
        nodes.append(copy.deepcopy(node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    unused = replaced - {name for node in nodes for name in node.input}
    used = [copy.deepcopy(tensor) for tensor in model.graph.initializer if tensor.name not in unused]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used)
    onnx.save(model, str(path))


def _is_product(node: Any, weights: Mapping[str, Any]) -> bool:
    return (
        node.op_type in _PRODUCTS
        and node.input[1] in weights
        and len(weights[node.input[1]].dims) == 2
        and weights[node.input[1]].data_type == _FLOAT32
    )


def _input_scales(largest: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Return the scale of each channel of one input, float32, shape (in,).

    `weights` are all weights, shape (in, out), that are multiplied with the input.
    """
    return channel_scales(largest, np.max([np.abs(weight).max(1) for weight in weights], axis=0), _SHARE)


def channel_scales(largest: np.ndarray, largest_weights: np.ndarray, share: float) -> np.ndarray:
    """Return the scale of each channel, float32, shape (in,), from its largest value and its largest weight.

    `share` is SmoothQuant's alpha: the share of a channel's size that its scale removes; the weights absorb the rest.
    """
    scales: np.ndarray = np.maximum(largest, _TINY) ** share / np.maximum(largest_weights, _TINY) ** (1 - share)
    return scales.astype(np.float32)


def _largest_values(path: Path, names: list[str], batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the largest absolute value of each channel (the last axis) of each named tensor over the batches."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    outputs = {tensor.name for tensor in model.graph.output}
    for name in names:
        if name not in outputs:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, values in zip(names, session.run(names, batch), strict=True):
            sizes = np.abs(values).reshape(-1, values.shape[-1]).max(0)
            largest[name] = np.maximum(largest[name], sizes) if name in largest else sizes
    return largest
