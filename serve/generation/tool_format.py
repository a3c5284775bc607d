"""The text of tool calls in a model's own chat template: the text around a name and around its arguments.

The template itself renders example calls, and the texts between their parts are the format. So what an answer is held to,
and what is read from it, is what the model was trained on, whether that is Hermes's and Qwen's `<tool_call>`, Llama 3's
bare object, or a list of objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_NAMES = ("raymill_probe_one", "raymill_probe_two")
_ARGUMENTS: dict[str, Any] = {"first_key": "first value", "second_key": ["second value", 3]}
_CONTENT = "raymill probe content"
_PARAMETERS = {"type": "object", "properties": {"first_key": {"type": "string"}, "second_key": {"type": "array"}}}
_TOOLS = [
    {"type": "function", "function": {"name": name, "description": "A probe.", "parameters": _PARAMETERS}}
    for name in _NAMES
]
_USER = {"role": "user", "content": "raymill probe question"}
_SEPARATORS = ((", ", ": "), (",", ":"))

#: Renders messages and tools with the chat template: (messages, tools, whether the beginning of an answer follows).
Render = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]], bool], str]


class ToolFormat(NamedTuple):
    """The text of an answer that calls tools: `before` name `middle` arguments (`between` name `middle` arguments)* `after`."""

    before: str
    """From the beginning of the calls to the name of the first tool."""
    middle: str
    """From a tool's name to its arguments, a JSON object."""
    between: str | None
    """From the arguments of a call to the name of the next tool; None if the template allows one call only."""
    after: str
    """From the last arguments to the end of the turn, without it."""
    separators: tuple[str, str] | None
    """What separates the items and the keys of the arguments' JSON; None if the template has line breaks in it."""

    @property
    def trigger(self) -> str:
        """The text with which calls begin, and no other answer: "" if they begin with their JSON."""
        return self.before.partition("{")[0].partition("\n")[0].rstrip(" [")

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Return the text of `calls`: pairs of a name and arguments as JSON."""
        between = self.between or ""
        return self.before + between.join(name + self.middle + arguments for name, arguments in calls) + self.after


def find_tool_format(render: Render, special_texts: Sequence[str] = ()) -> ToolFormat | None:
    """Return the format of tool calls in a template, or None if the template does not write calls that can be read.

    `special_texts` are the tokenizer's special tokens, one of which ends a turn.
    """
    try:
        opening = render([_USER], _TOOLS, True)
        answer = render([_USER, {"role": "assistant", "content": _CONTENT}], _TOOLS, False)
        one = render([_USER, _calls(1)], _TOOLS, False)
    except Exception:  # the template's own errors: it refuses tools or calls
        return None
    end_of_turn = answer.rpartition(_CONTENT)[2]
    if not one.startswith(opening):
        return None
    single = _parts(one[len(opening) :], 1)
    if single is None:
        return None
    (before, middle, after), separators = single
    after = _without_end(after, end_of_turn, special_texts)
    between = _between(render, opening, before, middle)
    # Special tokens are not in an answer's text, so calls marked by them could not be read.
    if any(special in f"{before}{middle}{between}{after}" for special in special_texts):
        return None
    return ToolFormat(before, middle, between, after, separators)


def _calls(count: int) -> dict[str, Any]:
    calls = [
        {"id": f"call{index}xyz", "type": "function", "function": {"name": name, "arguments": _ARGUMENTS}}
        for index, name in enumerate(_NAMES[:count])
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _parts(text: str, count: int) -> tuple[list[str], tuple[str, str] | None] | None:
    """Return the texts around the names and arguments of the first `count` probes, and the separators of their JSON."""
    parts: list[str] = []
    separators: tuple[str, str] | None = None
    for name in _NAMES[:count]:
        before, name_there, text = text.partition(name)
        middle, brace, _ = text.partition("{")
        if not name_there or not brace or "call0xyz" in before + middle:
            return None
        text = text[len(middle) :]
        try:
            arguments, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return None
        if arguments != _ARGUMENTS:
            return None
        separators = next((pair for pair in _SEPARATORS if json.dumps(_ARGUMENTS, separators=pair) == text[:end]), None)
        parts += [before, middle]
        text = text[end:]
    return [*parts, text], separators


def _between(render: Render, opening: str, before: str, middle: str) -> str | None:
    try:
        two = render([_USER, _calls(2)], _TOOLS, False)
    except Exception:  # Llama 3's template raises for a second call
        return None
    double = _parts(two[len(opening) :], 2) if two.startswith(opening) else None
    if double is None or double[0][:2] != [before, middle] or double[0][3] != middle:
        return None
    return double[0][2]


def _without_end(text: str, end_of_turn: str, special_texts: Sequence[str]) -> str:
    if end_of_turn and text.endswith(end_of_turn):
        return text[: len(text) - len(end_of_turn)]
    ends = [text.index(special) for special in special_texts if special in text]
    return text[: min(ends)] if ends else text.rstrip()
