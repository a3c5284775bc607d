"""BERT and similar encoders as an ONNX graph of few, large operations, in fp32 or with int8 matrix products.

The graph that torch exports has forty operations per layer, and ONNX Runtime's optimizer does not recognize its
attention. For one short text, the small operations then take longer than the matrix products. The graph built here has
about eighteen operations per layer: attention, layer norm with its residual, and GELU with its bias are one operation
each. In the last layer only the first token has a query.

Letters in shapes: B rows, T tokens of the longest row, W the model's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from serve.engines.encoder_weights import EncoderWeights, LayerWeights, LinearWeights, NormWeights

if TYPE_CHECKING:
    import torch

_MICROSOFT = "com.microsoft"
_OPSET, _IR = 17, 8
# The operations in the ONNX standard; all others are ONNX Runtime's own.
_ONNX_OPERATIONS = {
    "Add", "Cast", "CumSum", "Equal", "Gather", "Gemm", "Identity", "MatMul", "Mul", "Not", "QuantizeLinear", "Squeeze",
    "Tanh",
}  # fmt: skip


class QuantParams(NamedTuple):
    """The quantization of an input: round(x * scale + zero)."""

    scale: np.ndarray
    """Shape (in,), float32."""
    zero: int


def build_graph(
    encoder: EncoderWeights,
    *,
    token_types: bool,
    params: Mapping[str, QuantParams] | None = None,
    calibrating: bool = False,
) -> Any:
    """Return the ONNX model of an encoder.

    Its inputs are `input_ids`, `attention_mask` and, with `token_types`, `token_type_ids`, all of shape (B, T). Its
    output is `logits`, shape (B, C). With `params`, which holds the quantization of each of `quantized_inputs` by name,
    the products are int8. With `calibrating`, the quantized inputs are also outputs of the model, under their names.
    """
    return _GraphBuilder(encoder, token_types, params).build(calibrating)


def quantized_inputs(encoder: EncoderWeights) -> dict[str, list[LinearWeights]]:
    """Return the inputs that an int8 graph quantizes: name -> the linear layers that take this input."""
    inputs = {}
    for number, layer in enumerate(encoder.layers):
        inputs[f"{number}.attention"] = [layer.query, layer.key, layer.value]
        inputs[f"{number}.attention_output"] = [layer.attention_output]
        inputs[f"{number}.intermediate"] = [layer.intermediate]
        inputs[f"{number}.output"] = [layer.output]
    return inputs


def int8_product(values: np.ndarray, weight: np.ndarray) -> Any:
    """Return an ONNX model that computes one int8 product, with the same operation as the int8 graph.

    `values` is uint8, shape (N, in); `weight` is int8, shape (in, out).
    """
    from onnx import TensorProto, helper, numpy_helper

    arrays = {
        "values": values,
        "weight": weight,
        "one": np.array(1, np.float32),
        "sizes": np.ones(weight.shape[1], np.float32),
        "zero": np.array(0, np.uint8),
    }
    inputs = ["values", "weight", "one", "sizes", "zero"]
    node = helper.make_node("MatMulIntegerToFloat", inputs, ["product"], domain=_MICROSOFT)
    outputs = [helper.make_tensor_value_info("product", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return _make_model(helper.make_graph([node], "product", [], outputs, constants))


def quantize_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `weight` as int8, shape (out, in), and the step size of each output, float32, shape (out,)."""
    steps = np.maximum(np.abs(weight).max(1), np.finfo(np.float32).tiny * 127) / 127
    return np.round(weight / steps[:, None]).astype(np.int8), steps.astype(np.float32)


class _GraphBuilder:
    """Collects the operations and constants of one graph. Methods that add a part return the name of its output."""

    def __init__(self, encoder: EncoderWeights, token_types: bool, params: Mapping[str, QuantParams] | None) -> None:
        self._encoder, self._token_types, self._params = encoder, token_types, params
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self, calibrating: bool) -> Any:
        from onnx import TensorProto, helper

        self._constant("zero", np.array([0], np.int64))
        self._constant("one", np.array(1, np.float32))
        values = self._embeddings()
        for number, layer in enumerate(self._encoder.layers):
            values = self._layer(values, str(number), layer, is_last=number == len(self._encoder.layers) - 1)
        logits = self._head(values)
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self._token_types else [])]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"]) for name in names]
        outputs = [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["rows", "outputs"])]
        if calibrating:
            names = list(quantized_inputs(self._encoder))
            outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        return _make_model(helper.make_graph(self._nodes, "encoder", inputs, outputs, self._constants))

    def _embeddings(self) -> str:
        from onnx import TensorProto

        encoder = self._encoder
        ids = self._add("Cast", ["input_ids"], "ids", to=TensorProto.INT32)
        self._add("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        type_ids, type_table, positions = "", "", encoder.positions + encoder.token_types[0]
        if self._token_types:
            type_ids = self._add("Cast", ["token_type_ids"], "type_ids", to=TensorProto.INT32)
            type_table, positions = self._constant("token_types", encoder.token_types), encoder.positions
        words = self._constant("words", encoder.words)
        norm = encoder.embedding_norm
        position_table = self._constant("positions", positions)
        weights = self._norm_weights("embedding_norm", norm)
        inputs = [ids, type_ids, words, position_table, type_table, *weights, "", self._position_ids(ids)]
        return self._add("EmbedLayerNormalization", inputs, "embedded", "embedded_mask", epsilon=norm.eps)

    def _position_ids(self, ids: str) -> str:
        """Return the position of each token; "" if positions count from 0."""
        from onnx import TensorProto

        if self._encoder.padding is None:
            return ""
        padding = self._constant("padding", np.array(self._encoder.padding, np.int32))
        is_token = self._add("Not", [self._add("Equal", [ids, padding], "is_padding")], "is_token")
        ones = self._add("Cast", [is_token], "token_ones", to=TensorProto.INT32)
        count = self._add("CumSum", [ones, self._constant("axis", np.array(1, np.int32))], "token_count")
        return self._add("Add", [self._add("Mul", [count, ones], "real_count"), padding], "position_ids")

    def _layer(self, values: str, number: str, layer: LayerWeights, is_last: bool) -> str:
        query_input = quantized = self._quantized(values, f"{number}.attention")
        if is_last:  # the head reads only the first token
            query_input = self._add("Gather", [query_input, "zero"], f"{number}.first_input", axis=1)
            values = self._add("Gather", [values, "zero"], f"{number}.first", axis=1)
        query = self._product(query_input, f"{number}.query", layer.query, f"{number}.attention")
        key = self._product(quantized, f"{number}.key", layer.key, f"{number}.attention")
        value = self._product(quantized, f"{number}.value", layer.value, f"{number}.attention")
        mixed = self._add(
            "MultiHeadAttention", [query, key, value, "", "mask"], f"{number}.mixed", num_heads=self._encoder.heads
        )
        attention = self._linear(mixed, f"{number}.attention_output", layer.attention_output)
        values = self._add_and_norm(attention, values, f"{number}.attention_norm", layer.attention_norm)
        wide = self._linear(values, f"{number}.intermediate", layer.intermediate)
        output = self._linear(wide, f"{number}.output", layer.output)
        return self._add_and_norm(output, values, f"{number}.output_norm", layer.output_norm)

    def _linear(self, values: str, name: str, linear: LinearWeights) -> str:
        return self._product(self._quantized(values, name), f"{name}.product", linear, name)

    def _quantized(self, values: str, name: str) -> str:
        """Return the quantized input called `name`: uint8 in an int8 graph, unchanged in an fp32 graph."""
        if self._params is None:
            return self._add("Identity", [values], name)
        scale = self._constant(f"{name}.scale", self._params[name].scale)
        zero = self._constant(f"{name}.zero", np.array(self._params[name].zero, np.uint8))
        scaled = self._add("Mul", [values, scale], name)
        return self._add("QuantizeLinear", [scaled, "one", zero], f"{name}.bytes")

    def _product(self, values: str, name: str, linear: LinearWeights, input_name: str) -> str:
        """Return the output of a linear layer for a quantized input: product, bias and activation."""
        bias = self._constant(f"{name}.bias", linear.bias)
        has_gelu = linear.activation == "gelu"
        if self._params is None:
            weight = self._constant(f"{name}.weight", linear.weight.T)
            product = self._add("MatMul", [values, weight], f"{name}.plain")
            return self._add("BiasGelu" if has_gelu else "Add", [product, bias], name)
        as_int8, steps = quantize_weight(linear.weight.numpy() / self._params[input_name].scale)
        weight = self._constant(f"{name}.weight", as_int8.T)
        sizes = self._constant(f"{name}.size", steps)
        inputs = [values, weight, "one", sizes, f"{input_name}.zero", "", *([] if has_gelu else [bias])]
        product = self._add("MatMulIntegerToFloat", inputs, f"{name}.plain" if has_gelu else name)
        return self._add("BiasGelu", [product, bias], name) if has_gelu else product

    def _add_and_norm(self, values: str, residual: str, name: str, norm: NormWeights) -> str:
        inputs = [values, residual, *self._norm_weights(name, norm)]
        return self._add("SkipLayerNormalization", inputs, name, epsilon=norm.eps)

    def _norm_weights(self, name: str, norm: NormWeights) -> list[str]:
        return [self._constant(f"{name}.weight", norm.weight), self._constant(f"{name}.bias", norm.bias)]

    def _head(self, values: str) -> str:
        values = self._add("Squeeze", [values, self._constant("tokens", np.array([1], np.int64))], "first")
        for number, linear in enumerate(self._encoder.head):
            weight = self._constant(f"head{number}.weight", linear.weight)
            bias = self._constant(f"head{number}.bias", linear.bias)
            values = self._add("Gemm", [values, weight, bias], f"head{number}", transB=1)
            if linear.activation:
                operation = {"gelu": "Gelu", "tanh": "Tanh"}[linear.activation]
                values = self._add(operation, [values], f"head{number}.activation")
        return self._add("Identity", [values], "logits")

    def _constant(self, name: str, array: np.ndarray | torch.Tensor) -> str:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _add(self, operation: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        """Add an operation; return the name of its first output."""
        from onnx import helper

        domain = "" if operation in _ONNX_OPERATIONS else _MICROSOFT
        self._nodes.append(helper.make_node(operation, inputs, outputs, domain=domain, **attributes))
        return outputs[0]


def _make_model(graph: Any) -> Any:
    from onnx import helper

    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name="raymill")
