"""Turn pydantic's error about a spec into a sentence that names the key, the value and the rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel

from cluster.errors import suggest
from trainer.spec.renames import explain_renamed_key, new_value
from trainer.spec.run import RunSpec
from trainer.spec.section import FUNCTION_PATTERN, NAME_PATTERN
from trainer.spec.steps import REDACTED_NAME_PATTERN

_PATTERN_RULES = {
    NAME_PATTERN: "must be lower-case letters, digits, _ and -, starting with a letter or digit, at most 63 characters",
    FUNCTION_PATTERN: "must be module:function, for example my_steps:clean",
    REDACTED_NAME_PATTERN: "must be lower-case letters, digits and _, starting with a letter, for example order_number",
}


def explain_error(error: Any) -> str:
    """Return the message for one item of `ValidationError.errors()`."""
    location = _keys_in(error["loc"])
    key = ".".join(str(part) for part in location) or "the spec"
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        unknown = f"unknown key '{key}'; {suggest(str(location[-1]), _known_keys(location[:-1]))}"
        return explain_renamed_key(key, value) or unknown
    if kind == "missing":
        return f"'{key}' is missing; it must be given"
    rule = error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {rule}" if location else rule
    if kind == "string_pattern_mismatch":
        rule = _PATTERN_RULES.get(error["ctx"]["pattern"], rule)
    if kind == "literal_error" and new_value(key, value):
        rule = f"renamed; use {new_value(key, value)}"
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return f"{key}={shown}: {rule[0].lower()}{rule[1:]}"


def _keys_in(location: Iterable[Any]) -> list[Any]:
    """Return the keys of a location, without what pydantic adds: tags of unions (`<...>`) and `[key]`."""
    return [part for part in location if not (isinstance(part, str) and (part.startswith("<") or part == "[key]"))]


def _known_keys(location: Iterable[Any]) -> list[str]:
    """Return the keys of the section at `location`."""
    section: type[BaseModel] = RunSpec
    for part in location:
        field = section.model_fields.get(str(part))
        if field is not None:  # the key of a mapping and the index of a list are not fields; the section stays the same
            section = next(_sections_in(field.annotation), section)
    return list(section.model_fields)


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that an annotation such as `list[SpecSection] | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
