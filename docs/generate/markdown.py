"""Markdown that GitHub and MkDocs render in the same way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"`([^`]*)`")


def generated_page(title: str, source: str, *parts: str) -> str:
    """Return a page with its title, a note on where it comes from, and its parts, separated by empty lines."""
    note = f"<!-- Generated from {source} by `make reference`. Change the code, not this page. -->"
    return "\n\n".join([note, f"# {title}", *(part.strip() for part in parts if part.strip())]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. Its cells may hold Markdown; line breaks and `|` are made safe."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def code(text: object) -> str:
    """Return text as inline code."""
    return f"`{text}`"


def one_line(text: str) -> str:
    """Return text without its line breaks."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    # A `|` inside of code ends a cell on GitHub even if it is escaped, so code that holds one becomes HTML.
    def escape(match: re.Match[str]) -> str:
        inner = match[1]
        if "|" not in inner:
            return match[0]
        inner = inner.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
        return f"<code>{inner}</code>"

    return _CODE.sub(escape, one_line(text)).replace("|", "&#124;")
