"""HTML to the text a reader would see."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

_UNSEEN = frozenset({"script", "style", "template", "noscript", "head"})
# What stands in different paragraphs or cells must not run together.
_INLINE = frozenset({"a", "abbr", "b", "bdi", "bdo", "cite", "code", "em", "font", "i", "kbd", "mark", "q", "s", "samp",
                     "small", "span", "strong", "sub", "sup", "tt", "u", "var", "wbr"})  # fmt: skip


def make(params: dict[str, Any]) -> Callable[[str], str]:
    """Return the step; it has no parameters."""

    def step(text: str) -> str:
        if "<" not in text and "&" not in text:
            return text
        reader = _Text()
        reader.feed(text)
        reader.close()
        return "".join(reader.parts).strip()

    return step


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._unseen += tag in _UNSEEN
        self._space(tag)

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in _UNSEEN))
        self._space(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self._space(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)

    def _space(self, tag: str) -> None:
        if tag not in _INLINE and self.parts and not self.parts[-1].endswith(" "):
            self.parts.append(" ")
