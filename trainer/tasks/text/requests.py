"""Texts in requests: one text, or an object with one text per role. Raises `RequestError` for anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import RequestError, suggest
from cluster.text import is_blank, is_unicode, json_kind


def read_texts(inputs: Sequence[Any], roles: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts of a request by role: each input is a text, or with several roles an object of texts."""
    columns: dict[str, list[str]] = {role: [] for role in roles}
    for number, value in enumerate(inputs):
        where = f"inputs[{number}]"
        if len(roles) == 1:
            columns[roles[0]].append(_check_text(value, where))
            continue
        _check_object(value, where, roles)
        for role in roles:
            columns[role].append(_check_text(value[role], f"{where}.{role}"))
    return columns


def _check_object(value: object, where: str, roles: Sequence[str]) -> None:
    shape = "{" + ", ".join(f'"{role}": "..."' for role in roles) + "}"
    if not isinstance(value, Mapping):
        raise RequestError(422, "wrong_type", f"{where} is {json_kind(value)}; each input must be {shape}")
    for key in value:
        if key not in roles:
            raise RequestError(422, "unknown_key", f"{where}: unknown key {key[:80]!a}; {suggest(key[:80], roles)}")
    for role in roles:
        if role not in value:
            raise RequestError(422, "missing_key", f"{where} has no '{role}'; each input must be {shape}")


def _check_text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RequestError(422, "wrong_type", f"{where} is {json_kind(value)}; each must be a text")
    if not is_unicode(value):
        raise RequestError(422, "invalid_unicode", f"{where} contains half of a surrogate pair")
    if is_blank(value):  # the same rule as for the rows of a file
        raise RequestError(422, "empty_input", f"{where} is empty; remove it or give a text")
    return value
