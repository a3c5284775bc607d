"""Read tool calls from the text of an answer while it arrives. Plain functions of the text, in the template's format."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from serve.generation.tool_format import ToolFormat


class CallDelta(NamedTuple):
    """What a piece of text added to a tool call: its beginning, with id and name, or more of its arguments."""

    number: int
    """Its position among the answer's calls, from 0."""
    id: str = ""
    name: str = ""
    arguments: str = ""


class Parsed(NamedTuple):
    """What a piece of text added to the answer."""

    content: str
    calls: list[CallDelta]


class ToolParser:
    """Splits an answer into content and tool calls. `add` takes its text piece by piece, `finish` the end.

    Text that might be the beginning of a call is held back until it is one or is not. An answer that leaves the format,
    because no grammar held it or because it was cut, stays content from its beginning on.
    """

    def __init__(self, form: ToolFormat) -> None:
        self._form = form
        self._text = ""
        # What is expected next: the beginning of the calls, a name, or arguments.
        self._state = "content"
        self._depth, self._in_string, self._escaped = 0, False, False
        self.n_calls = 0

    def add(self, text: str) -> Parsed:
        """Return what `text` adds."""
        self._text += text
        content = ""
        calls: list[CallDelta] = []
        while True:
            if self._state == "content":
                content += self._take_content()
                if self._state == "content":
                    return Parsed(content, calls)
            elif self._state == "name":
                call = self._take_name()
                if call is None:
                    return Parsed(content, calls)
                calls.append(call)
            elif self._state == "arguments":
                piece = self._take_arguments()
                if piece:
                    calls.append(CallDelta(self.n_calls - 1, arguments=piece))
                if self._state == "arguments":
                    return Parsed(content, calls)
            elif not self._take_rest():
                return Parsed(content, calls)

    def finish(self) -> Parsed:
        """Return what was held back, once the answer has ended."""
        text, self._text = self._text, ""
        return Parsed(text if self._state == "content" else "", [])

    def _take_content(self) -> str:
        """Return the text before the first call, and step to its name; hold back what may be the beginning of a call."""
        opening = self._form.before
        start = self._text.find(opening)
        # Calls that begin with their JSON are the whole answer: a brace further on is content.
        if start >= 0 and (self._form.trigger or not self._text[:start].strip()):
            content, self._text = self._text[:start], self._text[start + len(opening) :]
            self._state = "name"
            return content.rstrip() if content.strip() else ""
        longest = min(len(opening) - 1, len(self._text))
        size = next((size for size in range(longest, 0, -1) if opening.startswith(self._text[-size:])), 0)
        # White space before calls is not content.
        end = len(self._text[: len(self._text) - size].rstrip())
        content, self._text = self._text[:end], self._text[end:]
        return content

    def _take_name(self) -> CallDelta | None:
        name, middle, rest = self._text.partition(self._form.middle)
        if not middle:
            return None
        self._text, self._state = rest, "arguments"
        self._depth, self._in_string, self._escaped = 0, False, False
        self.n_calls += 1
        return CallDelta(self.n_calls - 1, id=f"call_{secrets.token_hex(12)}", name=name)

    def _take_arguments(self) -> str:
        for position, character in enumerate(self._text):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    piece, self._text = self._text[: position + 1], self._text[position + 1 :]
                    self._state = "rest"
                    return piece
        piece, self._text = self._text, ""
        return piece

    def _take_rest(self) -> bool:
        """Step to the next call if there is one; return whether there is."""
        between = self._form.between
        if between is not None and self._text.startswith(between):
            self._text, self._state = self._text[len(between) :], "name"
            return True
        return False


def parse_calls(text: str, form: ToolFormat) -> tuple[str, list[dict[str, str]]]:
    """Return the content and the calls (id, name, arguments) of a whole answer."""
    parser = ToolParser(form)
    parts = [parser.add(text), parser.finish()]
    calls: list[dict[str, str]] = []
    for delta in (delta for part in parts for delta in part.calls):
        if delta.name:
            calls.append({"id": delta.id, "name": delta.name, "arguments": ""})
        calls[delta.number]["arguments"] += delta.arguments
    return "".join(part.content for part in parts), calls
