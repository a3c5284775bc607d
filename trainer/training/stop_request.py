"""A training that is asked to end at once, by whoever started it: a file in its folder, which its workers look for."""

from __future__ import annotations

from pathlib import Path

_ASKED = "end"


def ask(folder: Path) -> None:
    """Have the training in `folder` end after its next few steps, without judging them."""
    (folder / _ASKED).touch()


def is_asked(folder: Path) -> bool:
    """Whether the training is to end."""
    return (folder / _ASKED).exists()


def forget(folder: Path) -> None:
    """Let a training in `folder` go on again."""
    (folder / _ASKED).unlink(missing_ok=True)
