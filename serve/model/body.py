"""The body of a request to a list of inputs, or one clear refusal. Plain functions; nothing here knows Ray.

Whatever a client sends ends in a `RequestError` with its status: 400 no JSON, 413 too much, 422 wrong content.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from cluster.errors import RequestError, nearest
from cluster.text import json_kind

_KEYS = {"inputs"}


def parse(body: bytes, max_inputs: int) -> list[Any]:
    """Return the inputs of `{"inputs": [...]}`; what each of them must be is the task's to say."""
    if not body:
        raise RequestError(400, "no_body", 'the body is empty; send {"inputs": [...]}')
    value = json_of(body)
    if not isinstance(value, dict):
        raise RequestError(422, "wrong_type", f'the body is {json_kind(value)}; send an object: {{"inputs": [...]}}')
    for key in value:
        if key not in _KEYS:
            raise RequestError(422, "unknown_key", f"unknown key {key[:80]!a}; {nearest(key[:80], _KEYS)}")
    if "inputs" not in value:
        raise RequestError(422, "missing_key", "'inputs' is missing; send a list")
    inputs = value["inputs"]
    if not isinstance(inputs, list):
        raise RequestError(422, "wrong_type", f"'inputs' is {json_kind(inputs)}; send a list, also for one input")
    return limited(inputs, max_inputs)


def limited(inputs: list[Any], max_inputs: int) -> list[Any]:
    """Return the inputs, if they are neither none nor too many."""
    if not inputs:
        raise RequestError(422, "no_inputs", "'inputs' is empty; send at least one")
    if len(inputs) > max_inputs:
        raise RequestError(413, "too_many_inputs", f"there are {len(inputs)} inputs; at most {max_inputs} a request")
    return inputs


def json_of(body: bytes) -> Any:
    """Return the JSON value of a body. What orjson does not take, Python's own reader does or says why not.

    That is a number of more than 64 bits, and half of a surrogate pair, which the task then refuses by its place.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RequestError(400, "invalid_utf8", f"the body is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, "invalid_json", f"the body is not JSON: {reason}") from None


def _no_constant(name: str) -> None:
    """Python's reader takes NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{name} is no JSON value; a missing one is null")
