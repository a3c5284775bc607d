"""TODO docstring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel

from cluster.errors import nearest
from trainer.spec.data import FUNCTION_PATTERN, REDACTED_NAME_PATTERN
from trainer.spec.run import NAME_PATTERN, RunSpec

_PATTERN_RULES = {
    NAME_PATTERN: "must be lower-case letters, digits, _ and -, starting with a letter or digit, at most 63 characters",
    FUNCTION_PATTERN: "must be module:function, as my_steps:clean",
    REDACTED_NAME_PATTERN: "must be lower-case letters, digits and _, starting with a letter, as order_number",
}


def _explain(item: Any) -> str:
    # Without the tags of a union, and without the mark of a mapping's key, which itself stands before it.
    location = [
        part for part in item["loc"] if not (isinstance(part, str) and (part.startswith("<") or part == "[key]"))
    ]
    key = ".".join(str(part) for part in location) or "the spec"
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return f"unknown key '{key}'; {nearest(str(location[-1]), _keys_at(location[:-1]))}"
    if kind == "missing":
        return f"'{key}' is missing; it must be given"
    rule = item["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {rule}" if location else rule
    if kind == "string_pattern_mismatch":
        rule = _PATTERN_RULES.get(item["ctx"]["pattern"], rule)
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return f"{key}={shown}: {rule[0].lower()}{rule[1:]}"


def _keys_at(location: Iterable[Any]) -> list[str]:
    """The known keys of the section at `location`."""
    section: type[BaseModel] = RunSpec
    for part in location:
        field = section.model_fields.get(str(part))
        if field is not None:  # else the key of a dict or the place in a list: its section is already reached
            section = next(_sections(field.annotation), section)
    return list(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that an annotation as `list[Section] | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
