"""The Open Inference Protocol, version 2, over JSON: the protocol of KServe, Triton and their clients.

A request has one tensor for each role of a row (for example `text`), with one element per input. Or it has one tensor
called `inputs`, whose elements are complete inputs as for /predict: texts, or JSON. The response has a tensor `answer`
with the complete answers as JSON, and tensors with their parts: `label` and `score`, or `value`. Tensors of requests
may be in the protocol's binary form; responses are JSON only, which every client reads.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from cluster.errors import RequestError, suggest
from cluster.text import json_kind
from serve.model.batcher import Job
from serve.model.body import check_input_count
from serve.model.json_text import parse_json, to_utf8
from serve.model.served_model import ServedModel
from trainer.tasks.roles import FEATURE

# Name of the tensor with one whole input per element.
_INPUTS = "inputs"
# NumPy's type for each of the protocol's datatypes of numbers; binary data is little-endian.
_NUMBERS = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_SHORT_FLOATS = ("FP16", "FP32")
# The datatype that the metadata names for a kind of column; a request may use any other one. Texts are BYTES.
_DATATYPES = {"numeric": "FP64", "boolean": "BOOL"}
_BINARY_SIZE = "binary_data_size"
_LENGTH = re.compile(r"[0-9]{1,12}")
_MAX_DIMENSIONS, _MAX_SIZE = 8, 1 << 31


class InferInput(NamedTuple):
    """A parsed inference request."""

    inputs: list[Any]
    id: str | None
    outputs: list[str] | None
    """Names of the output tensors to return; None for all."""


def server_metadata() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "raymill", "version": "2", "extensions": ["binary_tensor_data"]}


def model_metadata(served: ServedModel) -> dict[str, Any]:
    """Return a model's metadata."""
    outputs = _output_types(served.example["answer"])
    return {
        "name": served.identity["name"],
        "versions": [str(served.identity["version"])],
        "platform": f"raymill_{served.identity['engine']}",
        "inputs": [
            {
                "name": _tensor_name(role),
                "datatype": _DATATYPES.get(served.contract.types.get(role, ""), "BYTES"),
                "shape": [-1],
            }
            for role in served.roles
        ],
        "outputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in outputs.items()],
        "parameters": {key: str(served.identity[key]) for key in ("fingerprint", "checkpoint", "engine")},
    }


def parse_request(served: ServedModel, body: bytes, header_length: str, content_type: str = "") -> InferInput:
    """Parse the body of an inference request. Raises `RequestError` if it is not valid.

    `header_length` is the value of the header inference-header-content-length: the number of bytes of JSON, which
    binary data follows. It is "" if the body is JSON only.
    """
    binary = b""
    if header_length:
        if not _LENGTH.fullmatch(header_length) or int(header_length) > len(body):
            raise RequestError(
                400,
                "wrong_length",
                f"inference-header-content-length is {header_length[:20]!a}, but the body has {len(body)} bytes",
            )
        body, binary = body[: int(header_length)], body[int(header_length) :]
    body = to_utf8(body, content_type)
    value = parse_json(body) if body else None
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), list) or not value["inputs"]:
        raise RequestError(422, "wrong_type", "send an object with 'inputs', a list of tensors")
    tensors: dict[str, list[Any]] = {}
    for index, tensor in enumerate(value["inputs"]):
        name, elements, binary = _parse_tensor(tensor, f"inputs[{index}]", binary)
        tensors[name] = elements
    outputs = _parse_output_names(served, value)
    inputs = check_input_count(_to_inputs(served, tensors), served.settings.max_inputs)
    return InferInput(inputs, value.get("id"), outputs or None)


def _parse_output_names(served: ServedModel, value: Mapping[str, Any]) -> list[str]:
    outputs = value.get("outputs")
    entries = [entry.get("name") for entry in outputs if isinstance(entry, dict)] if isinstance(outputs, list) else []
    names = [name for name in entries if isinstance(name, str)]
    if len(names) < len(entries) or not isinstance(value.get("id", ""), str):
        raise RequestError(422, "wrong_type", "'id' and the names of outputs must be strings")
    known = _output_types(served.example["answer"])
    for name in names:
        if name not in known:
            raise RequestError(422, "unknown_output", f"unknown output {name[:80]!a}; {suggest(name, known)}")
    return names


def build_response(served: ServedModel, request: InferInput, job: Job, timing_ms: dict[str, float]) -> dict[str, Any]:
    """Build the response to an inference request from its finished job."""
    answers, identity = job.answers, job.identity
    outputs = []
    for name, datatype in _output_types(served.example["answer"]).items():
        if request.outputs is None or name in request.outputs:
            values = [orjson.dumps(answer).decode() if name == "answer" else answer[name] for answer in answers]
            outputs.append({"name": name, "datatype": datatype, "shape": [len(values)], "data": values})
    response = {
        "model_name": identity["name"],
        "model_version": str(identity["version"]),
        "outputs": outputs,
        "parameters": {
            **{key: str(identity[key]) for key in ("fingerprint", "checkpoint", "engine")},
            **{f"{stage}_ms": value for stage, value in timing_ms.items()},
        },
    }
    return response if request.id is None else {**response, "id": request.id}


def _output_types(example: Mapping[str, Any]) -> dict[str, str]:
    """Return the output tensors: name -> datatype.

    There is one for each string or number in the answer, and `answer` for the complete answer as JSON.
    """
    types = {
        name: "BYTES" if isinstance(value, str) else "FP64"
        for name, value in example.items()
        if isinstance(value, (str, float, int))
    }
    return {**types, "answer": "BYTES"}


def _parse_tensor(tensor: Any, path: str, binary: bytes) -> tuple[str, list[Any], bytes]:
    """Return a tensor's name, its elements, and the binary data that is left for the next tensors.

    `path` is the tensor's position in the request, for messages.
    """
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise RequestError(
            422, "wrong_type", f"{path} is not a tensor; send an object with name, shape, datatype and data"
        )
    name, datatype, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise RequestError(422, "wrong_shape", f"{path}.shape must be a list of at most {_MAX_DIMENSIONS} integers")
    if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in _NUMBERS):
        shown = datatype if isinstance(datatype, str) else json_kind(datatype)
        hint = suggest(shown[:20], ["BYTES", *_NUMBERS])
        raise RequestError(422, "wrong_datatype", f"{path}.datatype is {shown[:20]!a}; {hint}")
    parameters = tensor.get("parameters")
    size = parameters.get(_BINARY_SIZE) if isinstance(parameters, dict) else None
    if size is None:
        if not isinstance(tensor.get("data"), list):
            raise RequestError(422, "missing_key", f"{path} has no 'data'; send a list")
        elements = _flatten(tensor["data"])
    elif not isinstance(size, int) or not 0 <= size <= len(binary):
        raise RequestError(
            422, "wrong_length", f"{path} declares {str(size)[:20]} bytes of binary data, but {len(binary)} are left"
        )
    else:
        elements, binary = _unpack(binary[:size], datatype, path), binary[size:]
    elements = _of_datatype(elements, datatype)
    if len(elements) != math.prod(shape):
        raise RequestError(422, "wrong_shape", f"{path} has {len(elements)} elements, which does not match its shape")
    return name, elements, binary


def _is_size(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _MAX_SIZE


def _flatten(data: list[Any]) -> list[Any]:
    flat: list[Any] = []
    stack = [iter(data)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            flat.append(value)
        else:
            stack.pop()
    return flat


def _unpack(data: bytes, datatype: str, path: str) -> list[Any]:
    """Return the elements of a tensor in binary form."""
    if datatype != "BYTES":
        dtype = np.dtype(_NUMBERS[datatype])
        if len(data) % dtype.itemsize:
            raise RequestError(
                422, "wrong_length", f"{path}: {len(data)} bytes is not a multiple of the size of {datatype}"
            )
        numbers: list[Any] = np.frombuffer(data, dtype).tolist()
        return numbers
    elements, offset = [], 0
    while offset < len(data):
        if offset + 4 > len(data):
            raise RequestError(422, "wrong_length", f"{path}: an element is truncated")
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if offset + length > len(data):
            raise RequestError(422, "wrong_length", f"{path}: an element of {length} bytes is truncated")
        try:
            elements.append(data[offset : offset + length].decode())
        except UnicodeDecodeError:
            raise RequestError(422, "invalid_utf8", f"{path}: an element is not UTF-8") from None
        offset += length
    return elements


def _tensor_name(role: str) -> str:
    """Return the name of the tensor for a role: for the column of a table the user's name of it, as in `/predict`."""
    return role.removeprefix(FEATURE)


def _of_datatype(elements: list[Any], datatype: str) -> list[Any]:
    """Return elements as the values that their datatype means.

    The 0.1 of a float32 is 0.1, as in a file, and not 0.10000000149, which is what clients write into JSON for it. 1 in a
    tensor of booleans is true.
    """
    if datatype in _SHORT_FLOATS:
        short = np.dtype(_NUMBERS[datatype]).type
        return [float(str(short(value))) if isinstance(value, float) else value for value in elements]
    if datatype == "BOOL":
        return [bool(value) if value in (0, 1) else value for value in elements]
    return elements


def _to_inputs(served: ServedModel, tensors: dict[str, list[Any]]) -> list[Any]:
    """Return the tensors' rows as inputs in the form that /predict takes."""
    names = [_tensor_name(role) for role in served.roles]
    if set(tensors) == {_INPUTS} and _INPUTS not in names:
        return [_parse_element(element, f"inputs[{index}]") for index, element in enumerate(tensors[_INPUTS])]
    for name in tensors:
        if name not in names:
            known = [*names, _INPUTS]
            raise RequestError(422, "unknown_input", f"unknown input {name[:80]!a}; {suggest(name[:80], known)}")
    missing = [name for name in names if name not in tensors and len(names) <= len(served.task.text_roles)]
    if missing:
        raise RequestError(422, "missing_input", f"the input {missing[0]!r} is missing")
    if len({len(elements) for elements in tensors.values()}) > 1:
        raise RequestError(422, "wrong_shape", "all inputs must have the same number of elements")
    if len(names) == 1 and served.task.text_roles:
        return tensors[names[0]]
    columns = list(tensors.items())
    return [{name: elements[row] for name, elements in columns} for row in range(len(columns[0][1]))]


def _parse_element(element: Any, where: str) -> Any:
    """Return the complete input in one element: parsed if it is a JSON object or list, else unchanged."""
    if isinstance(element, str) and element[:1] in "{[":
        try:
            return parse_json(element.encode("utf-8", "surrogatepass"), where)
        except RequestError as error:
            if error.code == "repeated_key":
                raise
    return element
