"""An ONNX graph whose multiplications lose less when they are made int8: channels of like size go into them.

ONNX Runtime gives all that is multiplied one scale, and a few channels of it are far larger than the others. Each channel is
divided by a scale of its own, and its weights are multiplied by it (SmoothQuant, Xiao et al., 2022): the same product, of
numbers that fit 8 bits. What several multiplications take is divided once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# How much of a channel's size goes into its scale; the rest is left to its weights.
_SHARE = 0.75
_TINY = 1e-4
# Nodes whose second input is a weight, shape (in, out).
_MULTIPLY = ("MatMul", "Attention")


def smooth(path: Path, batches: list[dict[str, np.ndarray]]) -> None:
    """Rewrite the graph in `path`; `batches` are inputs of it from which channels' sizes are read."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    weights = {found.name: found for found in model.graph.initializer}
    by_input: dict[str, list[np.ndarray]] = {}
    for node in model.graph.node:
        if _multiplies(node, weights):
            by_input.setdefault(node.input[0], []).append(numpy_helper.to_array(weights[node.input[1]]))
    largest = _largest(path, list(by_input), batches)
    scales = {name: _scale(largest[name], arrays) for name, arrays in by_input.items()}
    nodes, divided, replaced = [], set(), set()
    for node in model.graph.node:
        if _multiplies(node, weights):
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
    gone = replaced - {name for node in nodes for name in node.input}
    kept = [copy.deepcopy(found) for found in model.graph.initializer if found.name not in gone]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, str(path))


def _multiplies(node: Any, weights: Mapping[str, Any]) -> bool:
    return (
        node.op_type in _MULTIPLY
        and node.input[1] in weights
        and len(weights[node.input[1]].dims) == 2
        and weights[node.input[1]].data_type == 1  # float32
    )


def _scale(largest: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Return by what each channel is divided, float32, shape (in,), for all weights, shape (in, out), that take it."""
    return channel_sizes(largest, np.max([np.abs(weight).max(1) for weight in weights], axis=0), _SHARE)


def channel_sizes(largest: np.ndarray, of_weights: np.ndarray, share: float) -> np.ndarray:
    """Return by what channels are divided, float32, shape (in,): as their `largest` values have it, and those `of_weights`.

    `share` says how much of a channel's size is taken from it; the rest is left to its weights.
    """
    sizes: np.ndarray = np.maximum(largest, _TINY) ** share / np.maximum(of_weights, _TINY) ** (1 - share)
    return sizes.astype(np.float32)


def _largest(path: Path, names: list[str], batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the largest size that each channel, the last axis, of each named value has in the batches."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    there = {found.name for found in model.graph.output}
    for name in names:
        if name not in there:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, values in zip(names, session.run(names, batch), strict=True):
            sizes = np.abs(values).reshape(-1, values.shape[-1]).max(0)
            found[name] = np.maximum(found[name], sizes) if name in found else sizes
    return found
