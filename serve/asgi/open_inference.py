"""The Open Inference Protocol, version 2, over JSON: what KServe, Triton and their clients speak.

An input is a tensor for each role of a row (`text`), or one called `inputs` whose elements are inputs as /predict takes them, in
JSON where they are no texts. Answers are tensors too: `label` and `score`, or `value`, and `answer`, the whole of it as JSON.
Tensors may come in the protocol's binary form; answers are JSON, as every client reads it.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from cluster.errors import RequestError, nearest
from cluster.text import json_kind
from serve.model.body import json_of, limited
from serve.model.served_model import Served

_WHOLE = "inputs"
_NUMBERS = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_BINARY_SIZE = "binary_data_size"
_LENGTH = re.compile(r"[0-9]{1,12}")
_MOST_DIMENSIONS, _LARGEST = 8, 1 << 31


class Asked(NamedTuple):
    """A request of the protocol."""

    inputs: list[Any]
    id: str | None
    outputs: list[str] | None
    """The tensors that are wanted; None for all."""


def server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "raymill", "version": "2", "extensions": ["binary_tensor_data"]}


def metadata(served: Served) -> dict[str, Any]:
    """Return a model's metadata."""
    return {
        "name": served.model["name"],
        "versions": [str(served.model["version"])],
        "platform": f"raymill_{served.model['engine']}",
        "inputs": [{"name": role, "datatype": "BYTES", "shape": [-1]} for role in served.roles],
        "outputs": [
            {"name": name, "datatype": kind, "shape": [-1]} for name, kind in _outputs(served.example["answer"]).items()
        ],
        "parameters": {key: str(served.model[key]) for key in ("fingerprint", "checkpoint", "engine")},
    }


def read(served: Served, body: bytes, header_length: str) -> Asked:
    """Return what a request asks. Raises `RequestError`."""
    binary = b""
    if header_length:
        if not _LENGTH.fullmatch(header_length) or int(header_length) > len(body):
            raise RequestError(
                400, "wrong_length", f"inference-header-content-length is {header_length[:20]!a}, of {len(body)} bytes"
            )
        body, binary = body[: int(header_length)], body[int(header_length) :]
    value = json_of(body) if body else None
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), list) or not value["inputs"]:
        raise RequestError(422, "wrong_type", "send an object with 'inputs', a list of tensors")
    tensors: dict[str, list[Any]] = {}
    for place, tensor in enumerate(value["inputs"]):
        name, elements, binary = _tensor(tensor, f"inputs[{place}]", binary)
        tensors[name] = elements
    wanted = value.get("outputs")
    told = [one.get("name") for one in wanted if isinstance(one, dict)] if isinstance(wanted, list) else []
    names = [name for name in told if isinstance(name, str)]
    if len(names) < len(told) or not isinstance(value.get("id", ""), str):
        raise RequestError(422, "wrong_type", "'id' and the names of outputs must be texts")
    known = _outputs(served.example["answer"])
    for output in names:
        if output not in known:
            raise RequestError(422, "unknown_output", f"there is no output {output[:80]!a}; {nearest(output, known)}")
    found = limited(_rows(served, tensors), served.settings.max_inputs)
    return Asked(found, value.get("id"), names or None)


def answer(
    served: Served, asked: Asked, answers: Sequence[Mapping[str, Any]], timing_ms: dict[str, float]
) -> dict[str, Any]:
    """Return the answer of the protocol."""
    outputs = []
    for name, kind in _outputs(served.example["answer"]).items():
        if asked.outputs is None or name in asked.outputs:
            values = [orjson.dumps(one).decode() if name == "answer" else one[name] for one in answers]
            outputs.append({"name": name, "datatype": kind, "shape": [len(values)], "data": values})
    found = {
        "model_name": served.model["name"],
        "model_version": str(served.model["version"]),
        "outputs": outputs,
        "parameters": {
            **{key: str(served.model[key]) for key in ("fingerprint", "checkpoint", "engine")},
            **{f"{stage}_ms": value for stage, value in timing_ms.items()},
        },
    }
    return found if asked.id is None else {**found, "id": asked.id}


def _outputs(example: Mapping[str, Any]) -> dict[str, str]:
    """Return the tensors of an answer and their types: its texts and numbers, and the whole as JSON."""
    kinds = {name: "BYTES" if isinstance(value, str) else "FP64" for name, value in example.items()
             if isinstance(value, (str, float, int))}  # fmt: skip
    return {**kinds, "answer": "BYTES"}


def _tensor(tensor: Any, here: str, binary: bytes) -> tuple[str, list[Any], bytes]:
    """Return a tensor's name and elements, and the binary data that is left."""
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise RequestError(422, "wrong_type", f"{here} is no tensor: an object with name, shape, datatype and data")
    name, kind, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_size, shape)):
        raise RequestError(
            422, "wrong_shape", f"{here}.shape must be a list of at most {_MOST_DIMENSIONS} whole numbers"
        )
    if not isinstance(kind, str) or (kind != "BYTES" and kind not in _NUMBERS):
        kind = kind if isinstance(kind, str) else json_kind(kind)
        raise RequestError(
            422, "wrong_datatype", f"{here}.datatype is {kind[:20]!a}; {nearest(kind[:20], ['BYTES', *_NUMBERS])}"
        )
    parameters = tensor.get("parameters")
    size = parameters.get(_BINARY_SIZE) if isinstance(parameters, dict) else None
    if size is None:
        if not isinstance(tensor.get("data"), list):
            raise RequestError(422, "missing_key", f"{here} has no 'data', a list")
        elements = _flat(tensor["data"])
    elif not isinstance(size, int) or not 0 <= size <= len(binary):
        raise RequestError(
            422, "wrong_length", f"{here} says {str(size)[:20]} bytes of binary data; {len(binary)} are left"
        )
    else:
        elements, binary = _unpacked(binary[:size], kind, here), binary[size:]
    if len(elements) != math.prod(shape):
        raise RequestError(
            422, "wrong_shape", f"{here}: there are {len(elements)} elements, which is not what its shape says"
        )
    return name, elements, binary


def _is_size(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _LARGEST


def _flat(data: list[Any]) -> list[Any]:
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


def _unpacked(data: bytes, kind: str, here: str) -> list[Any]:
    if kind != "BYTES":
        dtype = np.dtype(_NUMBERS[kind])
        if len(data) % dtype.itemsize:
            raise RequestError(422, "wrong_length", f"{here}: {len(data)} bytes are no whole number of {kind}")
        found: list[Any] = np.frombuffer(data, dtype).tolist()
        return found
    elements, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise RequestError(422, "wrong_length", f"{here}: an element is cut short")
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > len(data):
            raise RequestError(422, "wrong_length", f"{here}: an element of {length} bytes is cut short")
        try:
            elements.append(data[at + 4 : at + 4 + length].decode())
        except UnicodeDecodeError:
            raise RequestError(422, "invalid_utf8", f"{here}: an element is not UTF-8") from None
        at += 4 + length
    return elements


def _rows(served: Served, tensors: dict[str, list[Any]]) -> list[Any]:
    """Return inputs as /predict takes them."""
    if set(tensors) == {_WHOLE} and _WHOLE not in served.roles:
        return [_whole(element) for element in tensors[_WHOLE]]
    for name in tensors:
        if name not in served.roles:
            known = [*served.roles, _WHOLE]
            raise RequestError(422, "unknown_input", f"there is no input {name[:80]!a}; {nearest(name[:80], known)}")
    missing = [role for role in served.roles if role not in tensors and len(served.roles) <= len(served.task.texts)]
    if missing:
        raise RequestError(422, "missing_input", f"the input {missing[0]!r} is missing")
    if len({len(elements) for elements in tensors.values()}) > 1:
        raise RequestError(422, "wrong_shape", "the inputs have different numbers of elements")
    if len(served.roles) == 1 and served.task.texts:
        return tensors[served.roles[0]]
    columns = list(tensors.items())
    return [{name: elements[row] for name, elements in columns} for row in range(len(columns[0][1]))]


def _whole(element: Any) -> Any:
    """Return an input that came as one element: JSON where it is an object's, else as it is."""
    if isinstance(element, str) and element[:1] in "{[":
        try:
            return orjson.loads(element)
        except orjson.JSONDecodeError:
            return element
    return element
