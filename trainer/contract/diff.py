"""Compare two contracts field by field, as plain JSON.

Nothing here depends on the fields of a contract, so contracts of older and newer versions can be compared too. Values
are compared key by key, with two exceptions: items of a list that have a `name` (steps) are matched by name, and lists
of plain values (labels) are compared by their content and their order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

_WORD = re.compile(r"[A-Za-z_]\w*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_ITEMS = 5
_MAX_CHARS = 80


class Change(NamedTuple):
    """One field that differs."""

    field: str
    """Path of the field, for example `steps.tokenize.max_length` or `files['tokenizer.json']`."""
    kind: str
    """changed, added, removed or reordered"""
    before: Any
    """Value in the first contract, None if it was added. For a list: the removed items."""
    after: Any
    """Value in the second contract, None if it was removed. For a list: the added items."""

    def __str__(self) -> str:
        if self.kind == "added":
            return f"{self.field}: added {_shorten_list(self.after)}"
        if self.kind == "removed":
            return f"{self.field}: removed {_shorten_list(self.before)}"
        if self.kind == "reordered":
            return f"{self.field}: another order, {_shorten_list(self.before)} -> {_shorten_list(self.after)}"
        return f"{self.field}: {shorten(self.before)} -> {shorten(self.after)}"


def compare_contracts(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Return the differences between two contracts (`Contract.model_dump(mode="json")`), in the order of the fields.

    The list is empty if and only if the two are equal.
    """
    return _compare_mappings("", before, after)


def shorten(value: Any) -> str:
    """Return a value on one line for people: a digest by its beginning, a long text cut."""
    if isinstance(value, str):
        return f"{value[:12]}…" if _DIGEST.fullmatch(value) else _cut(value)
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}… ({len(text):,} characters)"


def _shorten_list(value: Any) -> str:
    """Return the first items of a list on one line, or a single value."""
    if not isinstance(value, list):
        return shorten(value)
    more = f" and {len(value) - _MAX_ITEMS:,} more" if len(value) > _MAX_ITEMS else ""
    return ", ".join(f"'{item}'" if isinstance(item, str) else shorten(item) for item in value[:_MAX_ITEMS]) + more


def _join_path(path: str, key: str) -> str:
    if not _WORD.fullmatch(key):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def _compare_values(path: str, before: Any, after: Any) -> list[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        return _compare_mappings(path, before, after)
    if isinstance(before, list) and isinstance(after, list):
        if _have_names(before) and _have_names(after):
            return _compare_named_items(path, before, after)
        if _are_distinct_scalars(before) and _are_distinct_scalars(after):
            return _compare_scalars(path, before, after)
        return _compare_by_index(path, before, after)
    # 1 == 1.0 == True in Python, but not in a fingerprint.
    return [] if json.dumps(before) == json.dumps(after) else [Change(path, "changed", before, after)]


def _compare_mappings(path: str, before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    changes: list[Change] = []
    for key in [*before, *[key for key in after if key not in before]]:
        if key not in after:
            changes.append(Change(_join_path(path, key), "removed", before[key], None))
        elif key not in before:
            changes.append(Change(_join_path(path, key), "added", None, after[key]))
        else:
            changes += _compare_values(_join_path(path, key), before[key], after[key])
    return changes


def _have_names(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in items)


def _compare_named_items(path: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Change]:
    """Compare lists of {name, params} by name; the second item with a name is `name#2`."""
    first, second = _index_by_name(before), _index_by_name(after)
    return [*_compare_mappings(path, first, second), *_compare_order(path, list(first), list(second))]


def _index_by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    counts: Counter[str] = Counter()
    by_name = {}
    for item in items:
        name = item["name"]
        counts[name] += 1
        rest = {key: value for key, value in item.items() if key not in ("name", "params")}
        params = item.get("params", {})
        # The path is `steps.tokenize.max_length`, without `params`, because that is how people refer to it.
        if isinstance(params, dict) and not set(params) & set(rest):
            flat = {**rest, **params}
        else:
            flat = {**rest, "params": params}
        by_name[name if counts[name] == 1 else f"{name}#{counts[name]}"] = flat
    return by_name


def _are_distinct_scalars(items: list[Any]) -> bool:
    keys = [json.dumps(item) for item in items]
    return len(set(keys)) == len(keys) and not any(isinstance(item, (dict, list)) for item in items)


def _compare_scalars(path: str, before: list[Any], after: list[Any]) -> list[Change]:
    first, second = ({json.dumps(item): item for item in items} for items in (before, after))
    removed = [item for key, item in first.items() if key not in second]
    added = [item for key, item in second.items() if key not in first]
    changes = [Change(path, "removed", removed, None)] if removed else []
    changes += [Change(path, "added", None, added)] if added else []
    return changes + _compare_order(path, list(first.values()), list(second.values()))


def _compare_order(path: str, before: list[Any], after: list[Any]) -> list[Change]:
    """Return a change if the items that both lists hold are in another order."""
    in_both = {json.dumps(item) for item in before} & {json.dumps(item) for item in after}
    first, second = ([item for item in items if json.dumps(item) in in_both] for items in (before, after))
    return [Change(path, "reordered", first, second)] if first != second else []


def _compare_by_index(path: str, before: list[Any], after: list[Any]) -> list[Change]:
    changes: list[Change] = []
    for index in range(max(len(before), len(after))):
        if index >= len(after):
            changes.append(Change(f"{path}[{index}]", "removed", before[index], None))
        elif index >= len(before):
            changes.append(Change(f"{path}[{index}]", "added", None, after[index]))
        else:
            changes += _compare_values(f"{path}[{index}]", before[index], after[index])
    return changes
