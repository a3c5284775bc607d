"""Parse the body of a request into a list of inputs. Plain functions, without Ray.

Any body that is not valid ends in a `RequestError` with its status: 400 not JSON, 413 too large, 422 wrong content.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from cluster.errors import RequestError, suggest
from cluster.text import json_kind

_KEYS = {"inputs"}


def parse_body(body: bytes, max_inputs: int) -> list[Any]:
    """Return the inputs of `{"inputs": [...]}`. The task checks each of them later."""
    if not body:
        raise RequestError(400, "no_body", 'the body is empty; send {"inputs": [...]}')
    value = parse_json(body)
    if not isinstance(value, dict):
        raise RequestError(422, "wrong_type", f'the body is {json_kind(value)}; send an object: {{"inputs": [...]}}')
    for key in value:
        if key not in _KEYS:
            raise RequestError(422, "unknown_key", f"unknown key {key[:80]!a}; {suggest(key[:80], _KEYS)}")
    if "inputs" not in value:
        raise RequestError(422, "missing_key", "'inputs' is missing; send a list")
    inputs = value["inputs"]
    if not isinstance(inputs, list):
        raise RequestError(422, "wrong_type", f"'inputs' is {json_kind(inputs)}; send a list, even for one input")
    return check_input_count(inputs, max_inputs)


def check_input_count(inputs: list[Any], max_inputs: int) -> list[Any]:
    """Return the inputs. Raises `RequestError` if there are none or too many."""
    if not inputs:
        raise RequestError(422, "no_inputs", "'inputs' is empty; send at least one")
    if len(inputs) > max_inputs:
        raise RequestError(
            413, "too_many_inputs", f"the request has {len(inputs)} inputs; send at most {max_inputs} at a time"
        )
    return inputs


def parse_json(body: bytes) -> Any:
    """Return the JSON value of a body. Falls back to Python's own parser for values that orjson does not accept.

    These are numbers of more than 64 bits, and halves of a surrogate pair, which the task then rejects with the input's
    index.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_reject_constant)
    except UnicodeDecodeError as error:
        raise RequestError(400, "invalid_utf8", f"the body is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, "invalid_json", f"the body is not JSON: {reason}") from None


def _reject_constant(name: str) -> None:
    """Raise for NaN and Infinity, which Python's parser accepts and JSON does not have."""
    raise ValueError(f"{name} is not a JSON value; use null for a missing number")
