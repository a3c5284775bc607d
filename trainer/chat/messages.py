"""Conversations in the forms that data sets and clients write them, as one form of messages.

Two forms are read: OpenAI's (`role`, `content`, `tool_calls`) and ShareGPT's (`from`, `value`). The one form is OpenAI's as
chat templates expect it: content is a text, arguments of a call are an object, and a key without a value is absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

ASSISTANT = "assistant"
#: Names of the speakers in ShareGPT's form, and what they are called here.
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": ASSISTANT,
}
_FUNCTION_CALL = "function_call"
_ROLES = {"system", "developer", "user", ASSISTANT, "tool"}
#: Keys of a message that are read; others, such as ids of a data set, are left out.
_TEXT_KEYS = ("name", "tool_call_id", "reasoning_content")


class MessageError(ValueError):
    """A conversation that cannot be read. The message says why in a few words, without the text of the user."""


def read_messages(value: Any) -> list[dict[str, Any]]:
    """Return the messages of a conversation, a list of objects in either form. Raises `MessageError`."""
    if not isinstance(value, list):
        raise MessageError("not a list of messages")
    if not value:
        raise MessageError("no message")
    return [_read_message(message, f"message {number}") for number, message in enumerate(value, start=1)]


def read_tools(value: Any) -> list[dict[str, Any]] | None:
    """Return the functions that the assistant may call, in OpenAI's form; None if there are none.

    Raises `MessageError` for anything but a list of functions with names.
    """
    if isinstance(value, str):
        value = _parse(value, "tools")
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise MessageError("tools: not a list")
    tools = []
    for number, tool in enumerate(value, start=1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise MessageError(f"tool {number} has no function with a name")
        tools.append({"type": "function", "function": _without_nulls(function)})
    return tools


def _read_message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise MessageError(f"{where} is not an object")
    if "role" not in message and "from" in message:
        return _read_shared(message, where)
    role = message.get("role")
    if role not in _ROLES:
        raise MessageError(f"{where}: unknown role" if isinstance(role, str) else f"{where} has no role")
    result: dict[str, Any] = {"role": role}
    content = message.get("content")
    if content is not None:
        result["content"] = _join_parts(content, where)
    for key in _TEXT_KEYS:
        if isinstance(message.get(key), str):
            result[key] = message[key]
    if message.get("tool_calls"):
        result["tool_calls"] = _read_calls(message["tool_calls"], where)
    if message.get("weight") == 0 and role == ASSISTANT:  # OpenAI's way to say that an answer is not learned
        result["weight"] = 0
    if "content" not in result and "tool_calls" not in result:
        raise MessageError(f"{where} has no content")
    return result


def _read_shared(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    speaker, value = message["from"], message.get("value")
    if speaker not in SPEAKERS:
        raise MessageError(f"{where}: unknown speaker")
    if not isinstance(value, str):
        raise MessageError(f"{where} has no content")
    if speaker == _FUNCTION_CALL:
        call = _parse(value, where)
        calls = call if isinstance(call, list) else [call]
        return {"role": ASSISTANT, "tool_calls": _read_calls(calls, where)}
    return {"role": SPEAKERS[speaker], "content": value}


def _join_parts(content: Any, where: str) -> str:
    """Return the text of a content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else None
    if parts is None:
        raise MessageError(f"{where}: content is neither a text nor a list of parts")
    texts = []
    for part in parts:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            raise MessageError(f"{where}: a part of its content is not text")
        texts.append(text)
    return "".join(texts)


def _read_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise MessageError(f"{where}: tool_calls is not a list")
    result = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise MessageError(f"{where}: a tool call has no function with a name")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            arguments = _parse(arguments or "{}", where)
        elif isinstance(arguments, Mapping):
            # Readers of typed files give each call the keys of all calls: those without a value are not arguments.
            arguments = {key: value for key, value in arguments.items() if value is not None}
        if not (arguments is None or isinstance(arguments, Mapping)):
            raise MessageError(f"{where}: the arguments of a tool call are not an object")
        entry: dict[str, Any] = {"type": "function"}
        if isinstance(call.get("id"), str):
            entry["id"] = call["id"]
        result.append({**entry, "function": {"name": function["name"], "arguments": dict(arguments or {})}})
    return result


def _parse(text: str, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MessageError(f"{where}: not JSON") from None


def _without_nulls(value: Any) -> Any:
    """Return a value without the keys whose value is null: readers of typed files add them."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
