"""Turn pydantic's errors about a spec into sentences: the line, the key, the value as it is written, and the rule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from cluster.errors import suggest
from trainer.spec.key_types import Path
from trainer.spec.renames import explain_renamed_key, new_value
from trainer.spec.run import RunSpec
from trainer.spec.section import FUNCTION_PATTERN, NAME_PATTERN
from trainer.spec.steps import REDACTED_NAME_PATTERN
from trainer.spec.yaml_reader import Written

_PATTERN_RULES = {
    NAME_PATTERN: "must be lower-case letters, digits, _ and -, starting with a letter or digit, at most 63 characters",
    FUNCTION_PATTERN: "must be module:function, for example my_steps:clean",
    REDACTED_NAME_PATTERN: "must be lower-case letters, digits and _, starting with a letter, for example order_number",
}
_TEXT, _WHOLE, _NUMBER, _LIST = "must be a text", "must be a whole number", "must be a number", "must be a list"
_BOOLEAN, _SECTION = "must be true or false", "must be a section with keys"
_TYPE_RULES = {
    "string_type": _TEXT,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _SECTION,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "string_too_short": "must not be empty",
}
_MAX_SHOWN = 80
_SEXAGESIMAL = re.compile(r"\d+(:[0-5]?\d)+")


def explain_errors(errors: Sequence[Any], raw: Any, written: Mapping[Path, Written] | None = None) -> list[str]:
    """Return a message for each wrong key in `ValidationError.errors()` about the mapping `raw`.

    `written` says how the values stand in the file, and in which lines. Errors about the alternatives of one value, such
    as a number or a list, become one message.
    """
    written = written or {}
    messages: dict[str, list[str]] = {}
    for error in errors:
        path = _path(error, raw)
        words = written[path].text if path in written else ""
        subject, rule = _explain(error, path, words)
        position = _position(path, written)
        # A sentence without a subject stands alone.
        messages.setdefault(f"{position}{subject or rule}", []).extend([rule] if subject else [])
    return [f"{subject}{', or '.join(dict.fromkeys(rules))}" for subject, rules in messages.items()]


def _explain(error: Any, path: Path, words: str) -> tuple[str, str]:
    """Return what a message is about, for example `train.epochs=two: `, and the rule that is broken."""
    key = ".".join(str(part) for part in path) or "the spec"
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return "", explain_renamed_key(key, value) or f"unknown key '{key}'; {_suggest_key(path)}"
    if kind == "missing":
        return "", f"'{key}' is missing; it must be given"
    rule = error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return "", f"{key}: {rule}" if path else rule
    if kind == "string_pattern_mismatch":
        rule = _PATTERN_RULES.get(error["ctx"]["pattern"], rule)
    if kind == "literal_error" and new_value(key, value):
        rule = f"renamed; use {new_value(key, value)}"
    if kind in _TYPE_RULES:
        rule = _TYPE_RULES[kind]
        if value is None and not words:
            return f"{key} is empty: ", f"it {rule}; write it after the colon, or remove the key"
        rule += _advice(rule, value, words)
    shown = words if words and not isinstance(value, str) else repr(value)
    shown = shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 3] + "..."
    return f"{key}={shown}: ", f"{rule[0].lower()}{rule[1:]}"


def _advice(rule: str, value: Any, words: str) -> str:
    """Return what to write instead of a value of the wrong type, if the value shows it."""
    if isinstance(value, (dict, list, tuple)):
        return f", not a {'mapping' if isinstance(value, dict) else 'list'}"
    if rule == _TEXT:
        return f'; put it in quotes: "{words or value}"'
    if rule == _LIST:
        return f"; write [{words or value}]"
    if rule in (_WHOLE, _NUMBER) and isinstance(value, str):
        if _SEXAGESIMAL.fullmatch(value):
            return "; a colon makes it a text, so write one number, for example 90"
        if re.fullmatch(r"[-+]?\d*,\d+", value):
            return f"; write {value.replace(',', '.')}"
    return ""


def _path(error: Any, raw: Any) -> Path:
    """Return the keys of an error's location in `raw`, without what pydantic adds: names of alternatives, and `[key]`.

    What a short form stands for is left out too: an error in the step `my steps:clean` is about the item of the list.
    """
    location = [part for part in error["loc"] if part != "[key]"]
    path: list[Any] = []
    inner = raw
    for position, part in enumerate(location):
        is_last = position == len(location) - 1
        if (isinstance(inner, Mapping) and part in inner) or (
            isinstance(inner, (list, tuple)) and isinstance(part, int) and part < len(inner)
        ):
            inner = inner[part]
        elif not (is_last and error["type"] in ("missing", "extra_forbidden")):
            continue
        path.append(part)
    return tuple(path)


def _position(path: Path, written: Mapping[Path, Written]) -> str:
    """Return where a key stands, for example `line 3: `; of a key that is missing, where its section stands."""
    for length in range(len(path), 0, -1):
        if path[:length] in written:
            line = written[path[:length]].line
            return f"line {line}: " if line else "in --set: "
    return ""


def _suggest_key(path: Path) -> str:
    """Return what to write instead of an unknown key: the same key of another section, or a key that is close."""
    name = str(path[-1])
    elsewhere = [section for section in RunSpec.model_fields if name in _known_keys([section])]
    if len(elsewhere) == 1 and _known_keys([elsewhere[0]]) != list(RunSpec.model_fields):
        return f"write '{elsewhere[0]}.{name}'"
    return suggest(name, _known_keys(path[:-1]))


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
