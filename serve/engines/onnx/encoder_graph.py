"""BERT and its relatives as an ONNX graph of few, large operations, in fp32 or with its multiplications in int8.

The exporter's graph has forty operations to a layer, and attention in it is not recognised by ONNX Runtime's optimiser; for one
short text what lies between the multiplications then takes longer than they do. Here a layer has some eighteen: attention,
layer norm with its residual and GELU with its bias are one operation each, and in the last layer only the first token asks.

Letters in shapes: B rows, T tokens of the longest, W the model's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from serve.engines.encoder_weights import Encoder, Layer, Linear, Norm

if TYPE_CHECKING:
    import torch

_MICROSOFT = "com.microsoft"
_OPSET, _IR = 17, 8


class Bytes(NamedTuple):
    """How values of one place become bytes: x * scale + zero, rounded."""

    scale: np.ndarray
    """Shape (in,), float32."""
    zero: int


def graph_of(encoder: Encoder, *, pairs: bool, bytes_of: Mapping[str, Bytes] | None = None, seen: bool = False) -> Any:
    """Return the ONNX model: `input_ids`, `attention_mask` and, of `pairs`, `token_type_ids` (B, T) to `logits` (B, C).

    With `bytes_of`, by place, its multiplications are int8. With `seen` what goes into the multiplications is put out too, by its place.
    """
    return _Graph(encoder, pairs, bytes_of).model(seen)


def places(encoder: Encoder) -> dict[str, list[Linear]]:
    """Return where something is multiplied, and the weights that it is multiplied with there."""
    found = {}
    for number, layer in enumerate(encoder.layers):
        found[f"{number}.attention"] = [layer.query, layer.key, layer.value]
        found[f"{number}.after_attention"] = [layer.after_attention]
        found[f"{number}.widen"] = [layer.widen]
        found[f"{number}.narrow"] = [layer.narrow]
    return found


class _Graph:
    def __init__(self, encoder: Encoder, pairs: bool, bytes_of: Mapping[str, Bytes] | None) -> None:
        self._encoder, self._pairs, self._bytes_of = encoder, pairs, bytes_of
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self, seen: bool) -> Any:
        from onnx import TensorProto, helper

        self._constant("zero", np.array([0], np.int64))
        self._constant("one", np.array(1, np.float32))
        values = self._embedded()
        for number, layer in enumerate(self._encoder.layers):
            values = self._layer(values, str(number), layer, last=number == len(self._encoder.layers) - 1)
        logits = self._head(values)
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self._pairs else [])]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"]) for name in names]
        outputs = [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["rows", "outputs"])]
        if seen:
            outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in places(self._encoder)]
        return _model(helper.make_graph(self._nodes, "encoder", inputs, outputs, self._constants))

    def _embedded(self) -> str:
        from onnx import TensorProto

        encoder = self._encoder
        ids = self._add("Cast", ["input_ids"], "ids", to=TensorProto.INT32)
        self._add("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        kinds, of_kind, positions = "", "", encoder.positions + encoder.kinds[0]
        if self._pairs:
            kinds = self._add("Cast", ["token_type_ids"], "kind_of", to=TensorProto.INT32)
            of_kind, positions = self._constant("kinds", encoder.kinds), encoder.positions
        words = self._constant("words", encoder.words)
        norm = encoder.words_norm
        table = self._constant("positions", positions)
        inputs = [ids, kinds, words, table, of_kind, *self._norm("words_norm", norm), "", self._position_ids(ids)]
        return self._add("EmbedLayerNormalization", inputs, "embedded", "embedded_mask", epsilon=norm.eps)

    def _position_ids(self, ids: str) -> str:
        """Return the position of each token; "" where they are counted from 0 on."""
        from onnx import TensorProto

        if self._encoder.padding is None:
            return ""
        padding = self._constant("padding", np.array(self._encoder.padding, np.int32))
        other = self._add("Not", [self._add("Equal", [ids, padding], "is_padding")], "is_other")
        ones = self._add("Cast", [other], "other", to=TensorProto.INT32)
        counted = self._add("CumSum", [ones, self._constant("axis", np.array(1, np.int32))], "counted")
        return self._add("Add", [self._add("Mul", [counted, ones], "places"), padding], "position_ids")

    def _layer(self, values: str, number: str, layer: Layer, last: bool) -> str:
        asking = multiplied = self._multiplied(values, f"{number}.attention")
        if last:  # the head reads the first token alone
            asking = self._add("Gather", [asking, "zero"], f"{number}.asking", axis=1)
            values = self._add("Gather", [values, "zero"], f"{number}.first", axis=1)
        query = self._times(asking, f"{number}.query", layer.query, f"{number}.attention")
        key = self._times(multiplied, f"{number}.key", layer.key, f"{number}.attention")
        value = self._times(multiplied, f"{number}.value", layer.value, f"{number}.attention")
        attended = self._add(
            "MultiHeadAttention", [query, key, value, "", "mask"], f"{number}.attended", num_heads=self._encoder.heads
        )
        mixed = self._linear(attended, f"{number}.after_attention", layer.after_attention)
        values = self._normed(mixed, values, f"{number}.attention_norm", layer.attention_norm)
        wide = self._linear(values, f"{number}.widen", layer.widen)
        return self._normed(self._linear(wide, f"{number}.narrow", layer.narrow), values, f"{number}.norm", layer.norm)

    def _linear(self, values: str, place: str, linear: Linear) -> str:
        return self._times(self._multiplied(values, place), f"{place}.product", linear, place)

    def _multiplied(self, values: str, place: str) -> str:
        """Return what is multiplied at a place: the values, or bytes of them."""
        if self._bytes_of is None:
            return self._add("Identity", [values], place)
        scale = self._constant(f"{place}.scale", self._bytes_of[place].scale)
        zero = self._constant(f"{place}.zero", np.array(self._bytes_of[place].zero, np.uint8))
        scaled = self._add("Mul", [values, scale], place)
        return self._add("QuantizeLinear", [scaled, "one", zero], f"{place}.bytes")

    def _times(self, values: str, name: str, linear: Linear, place: str) -> str:
        """Return the product with a weight, its bias added, and what is to be done with that."""
        bias = self._constant(f"{name}.bias", linear.bias)
        is_gelu = linear.then == "gelu"
        if self._bytes_of is None:
            weight = self._constant(f"{name}.weight", linear.weight.T)
            product = self._add("MatMul", [values, weight], f"{name}.plain")
            return self._add("BiasGelu" if is_gelu else "Add", [product, bias], name)
        as_int8, sizes = in_int8(linear.weight.numpy() / self._bytes_of[place].scale)
        weight = self._constant(f"{name}.weight", as_int8.T)
        size = self._constant(f"{name}.size", sizes)
        inputs = [values, weight, "one", size, f"{place}.zero", "", *([] if is_gelu else [bias])]
        product = self._add("MatMulIntegerToFloat", inputs, f"{name}.plain" if is_gelu else name)
        return self._add("BiasGelu", [product, bias], name) if is_gelu else product

    def _normed(self, values: str, residual: str, name: str, norm: Norm) -> str:
        inputs = [values, residual, *self._norm(name, norm)]
        return self._add("SkipLayerNormalization", inputs, name, epsilon=norm.eps)

    def _norm(self, name: str, norm: Norm) -> list[str]:
        return [self._constant(f"{name}.weight", norm.weight), self._constant(f"{name}.bias", norm.bias)]

    def _head(self, values: str) -> str:
        values = self._add("Squeeze", [values, self._constant("tokens", np.array([1], np.int64))], "first")
        for number, linear in enumerate(self._encoder.head):
            weight = self._constant(f"head{number}.weight", linear.weight)
            bias = self._constant(f"head{number}.bias", linear.bias)
            values = self._add("Gemm", [values, weight, bias], f"head{number}", transB=1)
            if linear.then:
                op = {"gelu": "Gelu", "tanh": "Tanh"}[linear.then]
                values = self._add(op, [values], f"head{number}.then")
        return self._add("Identity", [values], "logits")

    def _constant(self, name: str, array: np.ndarray | torch.Tensor) -> str:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _add(self, op: str, inputs: Sequence[str], *outputs: str, **how: Any) -> str:
        """Add an operation; returns the name of its first output."""
        from onnx import helper

        domain = "" if op in _OF_ONNX else _MICROSOFT
        self._nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **how))
        return outputs[0]


_OF_ONNX = {
    "Add", "Cast", "CumSum", "Equal", "Gather", "Gemm", "Identity", "MatMul", "Mul", "Not", "QuantizeLinear", "Squeeze", "Tanh",
}  # fmt: skip


def bytes_times(values: np.ndarray, weight: np.ndarray) -> Any:
    """Return the ONNX model of one multiplication as the int8 graph has them, of bytes (N, in) and int8 (in, out)."""
    from onnx import TensorProto, helper, numpy_helper

    given = {
        "values": values,
        "weight": weight,
        "one": np.array(1, np.float32),
        "sizes": np.ones(weight.shape[1], np.float32),
        "zero": np.array(0, np.uint8),
    }
    inputs = ["values", "weight", "one", "sizes", "zero"]
    node = helper.make_node("MatMulIntegerToFloat", inputs, ["product"], domain=_MICROSOFT)
    outputs = [helper.make_tensor_value_info("product", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(array, name) for name, array in given.items()]
    return _model(helper.make_graph([node], "product", [], outputs, constants))


def _model(graph: Any) -> Any:
    from onnx import helper

    sets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=_IR, producer_name="raymill")


def in_int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a weight, shape (out, in), as int8, and the size of each output's step, float32, shape (out,)."""
    steps = np.maximum(np.abs(weight).max(1), np.finfo(np.float32).tiny * 127) / 127
    return np.round(weight / steps[:, None]).astype(np.int8), steps.astype(np.float32)
