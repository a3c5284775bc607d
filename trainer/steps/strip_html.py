"""Turn HTML into the text that a reader sees.

The module has its own scanner, because `html.parser` takes quadratic time on broken tags and hides everything after a
tag that is never closed. The scanner reads a text once. It removes only what is certainly a tag or hidden content.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

# Elements that a reader does not see, if they are closed. A title outside the head is text, for example in e-mails.
_HIDDEN = {
    name: re.compile(rf"</{name}[\s/>]", re.IGNORECASE) for name in ("script", "style", "template", "noscript", "head")
}
# Tags within a sentence. Texts between all other tags, for example paragraphs and cells, must not run together.
_INLINE = frozenset({"a", "abbr", "b", "bdi", "bdo", "cite", "code", "em", "font", "i", "kbd", "mark", "q", "s", "samp",
                     "small", "span", "strong", "sub", "sup", "tt", "u", "var", "wbr"})  # fmt: skip

# The start of a tag. The name is bounded, because only known names count and "<a<a<a" must not be read repeatedly.
_TAG = re.compile(r"<(?:(/?)([A-Za-z][^\s/>]{0,15})|!--|[!?]|/>)")
# The end of a tag, or the start of a quoted value, which may hold a ">".
_MARK = re.compile(r""">|=\s*["']""")
# Numbers are bounded: Python refuses to parse numbers of thousands of digits.
_ENTITY = re.compile(r"&(?:#[0-9]{1,9}(?![0-9])|#[xX][0-9A-Fa-f]{1,8}(?![0-9A-Fa-f])|[A-Za-z][A-Za-z0-9]{1,31});?")


def make(params: dict[str, Any]) -> Callable[[str], str]:
    """Return the step; it takes no parameters."""
    return visible_text


def visible_text(text: str) -> str:
    """Return `text` without tags, comments, scripts and styles, and with characters for its entities."""
    if "<" not in text:
        return _unescape(text).strip() if "&" in text else text
    scanner = _TagScanner(text)
    parts: list[str] = []
    needs_space = False  # a block ended since the last piece
    search_from = start = 0
    while tag := _TAG.search(text, search_from):
        end, name = scanner.end_of(tag)
        if end < 0:  # not a tag after all
            search_from = tag.end()
            continue
        if tag.start() > start:
            needs_space = _append(parts, _unescape(text[start : tag.start()]), needs_space)
        needs_space = needs_space or (name is not None and name not in _INLINE)
        search_from = start = end
    _append(parts, _unescape(text[start:]), needs_space)
    return "".join(parts).strip()


def _append(parts: list[str], piece: str, needs_space: bool) -> bool:
    """Append a piece, with a space before it if it needs one. Return whether the next piece still needs one."""
    if not piece:
        return needs_space
    if needs_space and parts and not parts[-1][-1].isspace() and not piece[0].isspace():
        parts.append(" ")
    parts.append(piece)
    return False


def _unescape(piece: str) -> str:
    return _ENTITY.sub(lambda entity: html.unescape(entity.group()), piece) if "&" in piece else piece


class _TagScanner:
    """Finds the ends of the tags in one text, and remembers failed searches so that none is repeated for every tag."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._last = {mark: text.rfind(mark) for mark in (">", "-->", '"', "'")}
        self._mark: re.Match[str] | None = None
        self._endless: set[int] = set()  # marks after which no ">" outside quotes follows
        self._unclosed: set[str] = set()  # names that have no further end tag

    def end_of(self, tag: re.Match[str]) -> tuple[int, str | None]:
        """Return (index after `tag`, or -1 if it is not a tag; the tag's name, or None for a comment).

        For the start tag of a hidden element, the index is that of its end tag.
        """
        if tag.group() == "<!--":
            begin = tag.start() + 2  # "<!-->" is a complete comment
            return (-1 if begin > self._last["-->"] else self._text.find("-->", begin) + 3), None
        if tag.group() == "</>":
            return tag.end(), None
        end = self._closing_bracket(tag.end())
        if end < 0:
            return -1, None
        name = tag.group(2) and tag.group(2).lower()
        opens_hidden = name in _HIDDEN and not tag.group(1) and self._text[end - 1] != "/"
        return (self._end_of_hidden(name, end + 1) if opens_hidden else end + 1), name

    def _closing_bracket(self, start: int) -> int:
        """Return the index of the ">" that ends the tag whose name ends at `start`, or -1."""
        if start > self._last[">"]:
            return -1
        if self._mark is None or self._mark.start() < start:
            self._mark = _MARK.search(self._text, start)
        mark, passed = self._mark, []
        while mark is not None and mark.start() not in self._endless:
            if mark.group() == ">":
                return mark.start()
            passed.append(mark.start())
            quote = mark.group()[-1]
            is_closed = mark.end() <= self._last[quote]  # a quote that is never closed does not count
            mark = _MARK.search(self._text, self._text.find(quote, mark.end()) + 1 if is_closed else mark.end())
        self._endless.update(passed)
        return -1

    def _end_of_hidden(self, name: str, start: int) -> int:
        """Return the index of the end tag of a hidden element, or `start` if it has none."""
        if name in self._unclosed:
            return start
        end_tag = _HIDDEN[name].search(self._text, start)
        if end_tag is None:
            self._unclosed.add(name)
            return start
        return end_tag.start()
