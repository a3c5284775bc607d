"""The pages of the documentation, and the fenced blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
#: Packages and folders with a README.
FOLDERS = ("raymill", "trainer", "serve", "tune", "cluster", "tests", "benchmarks", "examples")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*/README.md"),
        *(ROOT / folder / "README.md" for folder in FOLDERS),
    ]
)

_FENCE = re.compile(r"^( *)```(\w*)(?: +title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block."""

    page: Path
    line: int
    language: str
    title: str
    """The file that the block shows, or ""."""
    text: str

    @property
    def name(self) -> str:
        """`docs/page.md:12`."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[3] or "", match[4])
        for match in _FENCE.finditer(text)
    ]
