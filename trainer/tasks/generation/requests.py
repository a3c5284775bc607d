"""Requests of text generation, and rows in the form of requests.

A request is `{"messages": [...], "tools": [...]}`, `{"prompt": ...}` or a text. With its answer (a message of the assistant,
or the keys of the row's layout, such as `completion`) it is a whole row: golden rows have this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from cluster.errors import RequestError, suggest
from cluster.text import is_blank, is_unicode, json_kind
from trainer.chat.layouts import DESIRABLE, MESSAGES, PROMPT, ROLES, TEXT, TOOLS, is_messages
from trainer.chat.long_texts import GOES_ON, whole_part
from trainer.chat.rules import Layout
from trainer.tasks.encoder import Columns

#: Key of a request for the part of a long text that another part follows.
_GOES_ON = "goes_on"
SHAPES: dict[Layout, str] = {
    "messages": '{"messages": [{"role": "user", "content": "..."}]}',
    "completion": '{"prompt": "..."}',
    "text": '"a text that goes on"',
    "preference": '{"prompt": "..."}',
    "judged": '{"prompt": "..."}',
}


def read_requests(layout: Layout, roles: Sequence[str], inputs: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the cells of requests by role; None for a key that an input lacks. Raises `RequestError`."""
    rows = [_read_request(layout, roles, value, f"inputs[{number}]") for number, value in enumerate(inputs)]
    used = dict.fromkeys([*roles, *(role for row in rows for role in row)])
    return {role: [row.get(role) for row in rows] for role in used}


def as_requests(layout: Layout, columns: Columns) -> list[Any]:
    """Return rows in the form of requests."""
    requests = []
    for row in zip(*columns.values(), strict=True):
        cells = {role: cell for role, cell in zip(columns, row, strict=True) if cell is not None}
        request = {role: _value_of(role, cell) for role, cell in cells.items()}
        if TEXT in request:
            request[TEXT], is_end = whole_part(request[TEXT])
            request.update({} if is_end else {_GOES_ON: True})
        requests.append(request)
    return requests


def example_request(layout: Layout) -> Any:
    """Return an example of a request."""
    if layout == "messages":
        return {MESSAGES: [{"role": "user", "content": "How do I reset my password?"}]}
    return "Once upon a time" if layout == "text" else {PROMPT: "How do I reset my password?"}


def _read_request(layout: Layout, roles: Sequence[str], value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str) and layout != "messages":
        value = {PROMPT: value}
    if not isinstance(value, Mapping):
        raise RequestError(422, "wrong_type", f"{where} is {json_kind(value)}; each input must be {SHAPES[layout]}")
    known = [*ROLES[layout], *([PROMPT, _GOES_ON] if layout == "text" else [])]
    for key in value:
        if key not in known:
            raise RequestError(422, "unknown_key", f"{where}: unknown key {key[:80]!a}; {suggest(key[:80], known)}")
    asked = {"messages": (MESSAGES,), "text": (PROMPT, TEXT)}.get(layout, ROLES[layout])
    if not any(value.get(key) is not None for key in asked):
        raise RequestError(422, "missing_key", f"{where} has no '{asked[0]}'; each input must be {SHAPES[layout]}")
    goes_on = layout == "text" and value.get(_GOES_ON) is True
    values = {key: item for key, item in value.items() if item is not None and key != _GOES_ON}
    cells = {key: _read_value(key, item, f"{where}.{key}") for key, item in values.items()}
    return {**cells, TEXT: cells[TEXT] + GOES_ON} if goes_on and TEXT in cells else cells


def _read_value(role: str, value: Any, where: str) -> str:
    """Return the cell of a value, as readers give it."""
    if role == DESIRABLE and isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and role not in (MESSAGES, TOOLS):
        if not is_unicode(value):
            raise RequestError(422, "invalid_unicode", f"{where} contains half of a surrogate pair")
        if "\0" in value:
            raise RequestError(422, "invalid_unicode", f"{where} contains a NUL character")
        if is_blank(value):
            raise RequestError(422, "empty_input", f"{where} is empty; remove it or give a text")
        return value
    if not isinstance(value, list):
        needed = "a list" if role in (MESSAGES, TOOLS) else "a text or a list of messages"
        raise RequestError(422, "wrong_type", f"{where} is {json_kind(value)}; it must be {needed}")
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        raise RequestError(422, "invalid_unicode", f"{where} contains half of a surrogate pair") from None


def _value_of(role: str, cell: str) -> Any:
    """Return a cell as a JSON value."""
    if role == DESIRABLE:
        return cell.strip().lower() in ("true", "1", "yes")
    if role in (MESSAGES, TOOLS) or is_messages(cell):
        return orjson.loads(cell)
    return cell
