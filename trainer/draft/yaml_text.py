"""Write a spec as YAML with comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

#: The keys on the way to a value, for example ("data", "features", "age").
Keys = tuple[str, ...]

# Sections that are written with a line for each key; deeper mappings are written on one line.
_BLOCKS = {
    ("data",),
    ("data", "columns"),
    ("data", "features"),
    ("model",),
    ("model", "config"),
    ("train",),
    ("cluster",),
}
_PLAIN = re.compile(r"(?:(?:\.\.?)?/)*[A-Za-z_][A-Za-z0-9_]*(?:[./-][A-Za-z0-9_]+)*")
_ALIGNED, _MAX_ALIGNED = {("data", "columns"), ("data", "features")}, 50


def write_yaml(
    spec: Mapping[str, Any],
    comments: Mapping[Keys, str],
    *,
    header: Sequence[str] = (),
    below: Mapping[Keys, Sequence[str]] | None = None,
) -> str:
    """Return `spec` as YAML.

    `header` holds the comment lines at the top, `comments` a comment for the line of a key, and `below` comment lines
    at the end of a section. Line breaks and unprintable characters in comments become spaces.
    """
    lines = [f"# {_one_line(line)}".rstrip() for line in header]
    lines += _mapping_lines(spec, (), comments, below or {})
    return "\n".join(lines) + "\n"


def _mapping_lines(
    mapping: Mapping[str, Any], keys: Keys, comments: Mapping[Keys, str], below: Mapping[Keys, Sequence[str]]
) -> Iterator[str]:
    indent = "  " * len(keys)
    texts = {}
    for key, value in mapping.items():
        is_block = (*keys, key) in _BLOCKS and isinstance(value, dict) and value
        texts[key] = f"{indent}{_scalar(key)}:" + ("" if is_block else f" {flow_text(value)}")
    # Where lines are alike, their comments stand below each other.
    widths = [len(text) for text in texts.values() if len(text) <= _MAX_ALIGNED] if keys in _ALIGNED else []
    column = max(widths, default=0)
    for key, value in mapping.items():
        comment = comments.get((*keys, key))
        text = texts[key]
        yield f"{text:<{column}}  # {_one_line(comment)}" if comment else text
        if text.endswith(":"):
            yield from _mapping_lines(value, (*keys, key), comments, below)
    yield from (f"{indent}# {_one_line(line)}" for line in below.get(keys, ()))


def flow_text(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, float) and 0 < abs(value) < 1e-2 and float(f"{value:e}") == value:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa)}e{int(exponent)}"
    if not isinstance(value, str):
        return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("\n...\n").strip()
    if _PLAIN.fullmatch(value) and isinstance(yaml.safe_load(value), str):
        return value
    if value.startswith("package://"):
        return value
    return yaml.safe_dump(value, default_style='"', width=float("inf"), allow_unicode=True).strip()


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split(" ")).rstrip()
