"""TODO docstring."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def input_difference(recorded: list[Any], now: list[Any], folder: Path) -> str:
    """Return which number is another one, with the tokens if `folder` has a tokenizer; "" if all are equal."""
    parts = []
    if len(recorded) != len(now):
        parts.append(f"length of inputs: {len(recorded)} -> {len(now)}")
    place = next((at for at, pair in enumerate(zip(recorded, now, strict=False)) if pair[0] != pair[1]), None)
    if place is not None:
        before, after = recorded[place], now[place]
        parts.append(f"inputs[{place}]: recorded {before}, now {after}{_as_tokens(before, after, folder)}")
    return ", ".join(parts)


def _as_tokens(before: Any, after: Any, folder: Path) -> str:
    path = folder / "tokenizer.json"
    if not path.is_file() or not isinstance(before, int) or not isinstance(after, int):
        return ""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    first, second = tokenizer.id_to_token(before), tokenizer.id_to_token(after)
    return f" (token {first!r} -> {second!r})"
