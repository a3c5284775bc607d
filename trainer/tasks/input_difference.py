"""The first difference between two model inputs, as text for error messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def input_difference(recorded: list[Any], now: list[Any], folder: Path) -> str:
    """Return the first number that differs, with its tokens if `folder` has a tokenizer; "" if the inputs are equal."""
    differences = []
    if len(recorded) != len(now):
        differences.append(f"length of inputs: {len(recorded)} -> {len(now)}")
    pairs = zip(recorded, now, strict=False)
    first = next((number for number, (before, after) in enumerate(pairs) if before != after), None)
    if first is not None:
        before, after = recorded[first], now[first]
        differences.append(f"inputs[{first}]: recorded {before}, now {after}{_as_tokens(before, after, folder)}")
    return ", ".join(differences)


def _as_tokens(before: Any, after: Any, folder: Path) -> str:
    path = folder / "tokenizer.json"
    if not path.is_file() or not isinstance(before, int) or not isinstance(after, int):
        return ""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return f" (token {tokenizer.id_to_token(before)!r} -> {tokenizer.id_to_token(after)!r})"
