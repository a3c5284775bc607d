"""HTML to the text a reader would see.

A scanner of our own: `html.parser` takes quadratic time on broken tags, and hides all that follows one never closed.
Here a text is gone through once, and what is no tag, or hides nothing for sure, stays in the text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

# What a reader does not see, if it is closed. A title outside the head is text: mails and cuttings have such.
_UNSEEN = {
    name: re.compile(rf"</{name}[\s/>]", re.IGNORECASE) for name in ("script", "style", "template", "noscript", "head")
}
# What stands in different paragraphs or cells must not run together.
_INLINE = frozenset({"a", "abbr", "b", "bdi", "bdo", "cite", "code", "em", "font", "i", "kbd", "mark", "q", "s", "samp",
                     "small", "span", "strong", "sub", "sup", "tt", "u", "var", "wbr"})  # fmt: skip

# "<" and what makes it a tag. The name is bounded: only known ones count, and "<a<a<a" must not be read again and again.
_TAG = re.compile(r"<(?:(/?)([A-Za-z][^\s/>]{0,15})|!--|[!?]|/>)")
# What ends a tag, and what begins a value that may hold a ">".
_MARK = re.compile(r""">|=\s*["']""")
# Numbers are bounded: Python refuses to read those of thousands of digits.
_ENTITY = re.compile(r"&(?:#[0-9]{1,9}(?![0-9])|#[xX][0-9A-Fa-f]{1,8}(?![0-9A-Fa-f])|[A-Za-z][A-Za-z0-9]{1,31});?")


def make(params: dict[str, Any]) -> Callable[[str], str]:
    """Return the step; it has no parameters."""
    return visible


def visible(text: str) -> str:
    """Return `text` without tags, comments, scripts and styles, and with characters for its entities."""
    if "<" not in text:
        return _characters(text).strip() if "&" in text else text
    page = _Page(text)
    parts: list[str] = []
    apart = False  # a block ended since the last piece
    at = start = 0
    while found := _TAG.search(text, at):
        end, name = page.end_of(found)
        if end < 0:  # no tag after all
            at = found.end()
            continue
        if found.start() > start:
            apart = _add(parts, _characters(text[start : found.start()]), apart)
        apart = apart or (name is not None and name not in _INLINE)
        at = start = end
    _add(parts, _characters(text[start:]), apart)
    return "".join(parts).strip()


def _add(parts: list[str], piece: str, apart: bool) -> bool:
    """Append a piece, with a space before it where it has to stand apart. Return whether the next one still has to."""
    if not piece:
        return apart
    if apart and parts and not parts[-1][-1].isspace() and not piece[0].isspace():
        parts.append(" ")
    parts.append(piece)
    return False


def _characters(piece: str) -> str:
    return _ENTITY.sub(lambda found: html.unescape(found.group()), piece) if "&" in piece else piece


class _Page:
    """Where tags end. What was looked for in vain is remembered, so that no part of a text is gone through for each tag."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._last = {mark: text.rfind(mark) for mark in (">", "-->", '"', "'")}
        self._mark: re.Match[str] | None = None
        self._endless: set[int] = set()  # marks from which no ">" outside quotes is reached
        self._unclosed: set[str] = set()  # names whose end tag does not come any more

    def end_of(self, tag: re.Match[str]) -> tuple[int, str | None]:
        """Return where the text goes on behind `tag`, -1 if it is none, and the tag's name, None for a comment."""
        if tag.group() == "<!--":
            begin = tag.start() + 2  # "<!-->" is a whole comment
            return (-1 if begin > self._last["-->"] else self._text.find("-->", begin) + 3), None
        if tag.group() == "</>":
            return tag.end(), None
        end = self._closing(tag.end())
        if end < 0:
            return -1, None
        name = tag.group(2) and tag.group(2).lower()
        opens = name in _UNSEEN and not tag.group(1) and self._text[end - 1] != "/"
        return (self._behind(name, end + 1) if opens else end + 1), name

    def _closing(self, at: int) -> int:
        """Return the place of the ">" that ends the tag whose name ends at `at`, or -1."""
        if at > self._last[">"]:
            return -1
        if self._mark is None or self._mark.start() < at:
            self._mark = _MARK.search(self._text, at)
        mark, passed = self._mark, []
        while mark is not None and mark.start() not in self._endless:
            if mark.group() == ">":
                return mark.start()
            passed.append(mark.start())
            quote = mark.group()[-1]
            closed = mark.end() <= self._last[quote]  # a quote never closed is none
            mark = _MARK.search(self._text, self._text.find(quote, mark.end()) + 1 if closed else mark.end())
        self._endless.update(passed)
        return -1

    def _behind(self, name: str, at: int) -> int:
        """Return where the end tag of the unseen `name` begins, or `at` if there is none."""
        if name in self._unclosed:
            return at
        found = _UNSEEN[name].search(self._text, at)
        if found is None:
            self._unclosed.add(name)
            return at
        return found.start()
