"""Parse the body of a request into a list of inputs. Plain functions, without Ray.

An invalid body raises a `RequestError`. Its status is 400 for a body that is not JSON, 413 for too many inputs, and 422
for wrong content.
"""

from __future__ import annotations

from typing import Any

from cluster.errors import RequestError, suggest
from cluster.text import json_kind
from serve.model.json_text import parse_json, to_utf8

_KEYS = {"inputs"}


def parse_body(body: bytes, max_inputs: int, content_type: str = "") -> list[Any]:
    """Return the inputs in a body `{"inputs": [...]}`. The task checks each input later."""
    body = to_utf8(body, content_type)
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
