"""Read the JSON of a request: its character encoding, and keys that an object has twice. Plain functions.

JSON is UTF-8. Clients also send it with a byte order mark, or in another encoding that the `charset` of the content type
names. A charset is obeyed; without one, a byte order mark decides. The mark itself is no part of the text.

JSON parsers keep the last value of a key that an object has twice. Nobody can tell which one was meant, so such a body is
refused, at every depth.
"""

from __future__ import annotations

import json
import re
from email.message import Message
from typing import Any

import orjson

from cluster.errors import RequestError

# Charsets that are obeyed, with Python's name of each.
_CHARSETS = {
    "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii",
    "utf-16": "utf-16", "utf-16le": "utf-16-le", "utf-16be": "utf-16-be",
    "utf-32": "utf-32", "utf-32le": "utf-32-le", "utf-32be": "utf-32-be",
    "iso-8859-1": "latin-1", "latin1": "latin-1", "iso-8859-15": "iso8859-15", "windows-1252": "cp1252",
}  # fmt: skip
_SHOWN = "utf-8, us-ascii, utf-16, utf-32, iso-8859-1, iso-8859-15 and windows-1252"
_UTF8_MARK = b"\xef\xbb\xbf"
# Byte order marks of the other encodings; the mark of UTF-32 starts with that of UTF-16.
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# What ends each key of an object. It also occurs in texts, so it occurs at least as often as there are keys.
_KEY_END = re.compile(rb'"[ \t\r\n]*:')
# Keys longer than this are cut in messages.
_MAX_KEY = 80


def to_utf8(body: bytes, content_type: str) -> bytes:
    """Return the text of a body as UTF-8, without a byte order mark.

    Raises `RequestError` 415 for a charset that is unknown, and 400 if the body does not have its charset.
    """
    charset = _charset(content_type)
    encoding = _CHARSETS[charset] if charset else next(
        (encoding for mark, encoding in _MARKS.items() if body.startswith(mark)), "utf-8"
    )  # fmt: skip
    if encoding == "utf-8":
        return body.removeprefix(_UTF8_MARK)
    if encoding in ("utf-16", "utf-32") and not body.startswith(tuple(_MARKS)):
        # The first character of JSON is ASCII, so its zero bytes show the byte order.
        encoding += "-be" if body.startswith(b"\0") else "-le"
    try:
        return body.decode(encoding).removeprefix("\ufeff").encode("utf-8")
    except UnicodeDecodeError as error:
        name = charset or encoding
        raise RequestError(400, "invalid_charset", f"the body is not {name} (byte {error.start})") from None


def _charset(content_type: str) -> str:
    """Return the charset that a content type names, or "" if it names none."""
    if "charset" not in content_type.lower():
        return ""
    header = Message()
    header["content-type"] = content_type
    value = header.get_param("charset", "")
    charset = str(value[2] if isinstance(value, tuple) else value).strip().strip("'").lower()
    if charset and charset not in _CHARSETS:
        raise RequestError(415, "unknown_charset", f"charset is {charset[:40]!a}, which is unknown here; send {_SHOWN}")
    return charset


def parse_json(body: bytes, where: str = "") -> Any:
    """Return the JSON value of a body in UTF-8.

    Raises `RequestError` 400 if the body is not JSON, or if one of its objects has a key twice. `where` is the value's
    own position in the request, for messages.

    Python's own parser reads what orjson does not accept: numbers of more than 64 bits, and halves of a surrogate pair.
    The task then rejects these with the input's index.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_slowly(body, where)
    # As many keys in the value as in the text: none was there twice. Texts with colons make the first count too high.
    n_keys = _count_keys(value)
    if n_keys == body.count(b":") or n_keys == len(_KEY_END.findall(body)):
        return value
    _parse_slowly(body, where)
    return value


def _count_keys(value: Any) -> int:
    """Return the number of keys of all objects in a JSON value."""
    n_keys, stack = 0, [value]
    while stack:
        item = stack.pop()
        if type(item) is dict:
            n_keys += len(item)
            item = item.values()
        elif type(item) is not list:
            continue
        stack += [inner for inner in item if type(inner) is dict or type(inner) is list]
    return n_keys


class _RepeatedKey(dict[str, Any]):
    """An object with a key that occurs twice; `key` is its name."""

    key = ""


def _parse_slowly(body: bytes, where: str) -> Any:
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_reject_constant, object_pairs_hook=_make_object)
    except UnicodeDecodeError as error:
        raise RequestError(400, "invalid_utf8", f"the body is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, "invalid_json", f"the body is not JSON: {reason}") from None
    _check_keys(value, where)
    return value


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    repeated, seen = _RepeatedKey(value), set()
    for key, _ in pairs:
        if key in seen:
            repeated.key = key
            break
        seen.add(key)
    return repeated


def _check_keys(value: Any, where: str) -> None:
    """Raise `RequestError` 400 for the first object in `value` that has a key twice, with its position."""
    stack = [(value, where)]
    while stack:
        item, path = stack.pop()
        if isinstance(item, _RepeatedKey):
            inside = f" in {path}" if path else ""
            raise RequestError(
                400, "repeated_key", f"the key {item.key[:_MAX_KEY]!a} occurs twice{inside}; send each key once"
            )
        if isinstance(item, dict):
            inner = [(child, _join(path, key)) for key, child in item.items()]
        elif isinstance(item, list):
            inner = [(child, f"{path}[{index}]") for index, child in enumerate(item)]
        else:
            continue
        stack += reversed([pair for pair in inner if isinstance(pair[0], (dict, list))])


def _join(path: str, key: str) -> str:
    """Return the path of an object's value, in ASCII: a key may hold halves of a surrogate pair."""
    name = ascii(key[:_MAX_KEY])[1:-1]
    return f"{path}.{name}" if path else name


def _reject_constant(name: str) -> None:
    """Raise `ValueError` for NaN and Infinity: Python's parser accepts them, but they are not JSON."""
    raise ValueError(f"{name} is not a JSON value; use null for a missing number")
