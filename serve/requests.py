"""The body of a request to a list of texts, or one clear refusal. Plain functions; nothing here knows Ray.

Whatever a client sends ends in a `RequestError` with its status: 400 no JSON, 413 too much, 422 wrong content.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from cluster.errors import RequestError, nearest
from cluster.text import is_blank, is_unicode

_KEYS = {"inputs"}


async def read_body(chunks: AsyncIterator[bytes], declared: str | None, max_bytes: int) -> bytes:
    """Return the body, or refuse it as soon as it is known to be too large."""
    too_large = RequestError(413, "body_too_large", f"the body is over {max_bytes} bytes; send fewer inputs at a time")
    if declared is not None and declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def parse(body: bytes, max_inputs: int) -> list[str]:
    """Return the texts of `{"inputs": ["...", ...]}`."""
    if not body:
        raise RequestError(400, "no_body", 'the body is empty; send {"inputs": ["..."]}')
    try:
        value = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RequestError(400, "invalid_utf8", f"the body is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, "invalid_json", f"the body is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise RequestError(422, "wrong_type", f'the body is {_kind(value)}; send an object: {{"inputs": ["..."]}}')
    for key in value:
        if key not in _KEYS:
            raise RequestError(422, "unknown_key", f"unknown key {key[:80]!a}; {nearest(key[:80], _KEYS)}")
    if "inputs" not in value:
        raise RequestError(422, "missing_key", "'inputs' is missing; send a list of texts")
    return _texts(value["inputs"], max_inputs)


def _texts(inputs: object, max_inputs: int) -> list[str]:
    if not isinstance(inputs, list):
        raise RequestError(422, "wrong_type", f"'inputs' is {_kind(inputs)}; send a list of texts, also for one text")
    if not inputs:
        raise RequestError(422, "no_inputs", "'inputs' is empty; send at least one text")
    if len(inputs) > max_inputs:
        raise RequestError(
            413, "too_many_inputs", f"'inputs' holds {len(inputs)} texts; at most {max_inputs} a request"
        )
    for place, text in enumerate(inputs):
        if not isinstance(text, str):
            raise RequestError(422, "wrong_type", f"inputs[{place}] is {_kind(text)}; each must be a text")
        if not is_unicode(text):
            raise RequestError(422, "invalid_unicode", f"inputs[{place}] holds half of a surrogate pair")
        if is_blank(text):  # as the row of a training file would be
            raise RequestError(422, "empty_input", f"inputs[{place}] is empty; take it out or give a text")
    return inputs


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
