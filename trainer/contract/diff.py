"""What differs between two contracts, field by field: plain functions on plain JSON.

Nothing here knows the contract's fields, so a contract of an older or a newer raymill is compared as well. Only two
shapes get more than "key by key": a list of parts with a `name` (steps) is matched by name, and a list of single
values (labels) is taken for what it holds and in which order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

_WORD = re.compile(r"[A-Za-z_]\w*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHOWN_ITEMS = 5
_SHOWN_CHARS = 80


class Change(NamedTuple):
    """One field that differs."""

    field: str
    """Its place, as `steps.tokenize.max_length` or `files['tokenizer.json']`."""
    kind: str
    """changed, added, removed or reordered"""
    before: Any
    """Its value in the first contract; None where it was added. Of a list: the items that were removed."""
    after: Any
    """Its value in the second contract; None where it was removed. Of a list: the items that were added."""

    def __str__(self) -> str:
        if self.kind == "added":
            return f"{self.field}: added {_listed(self.after)}"
        if self.kind == "removed":
            return f"{self.field}: removed {_listed(self.before)}"
        if self.kind == "reordered":
            return f"{self.field}: another order, {_listed(self.before)} -> {_listed(self.after)}"
        return f"{self.field}: {short(self.before)} -> {short(self.after)}"


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Return what differs between two contracts (`Contract.model_dump(mode="json")`), in the order of the fields.

    Empty if, and only if, the two are equal.
    """
    return list(_of_dicts("", before, after))


def short(value: Any) -> str:
    """Return a value on one line for people: digests by their beginning, long ones cut."""
    if isinstance(value, str):
        return f"{value[:12]}…" if _DIGEST.fullmatch(value) else _cut(value)
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text):,} characters)"


def _listed(value: Any) -> str:
    """Return the beginning of a list, or one value."""
    if not isinstance(value, list):
        return short(value)
    more = f" and {len(value) - _SHOWN_ITEMS:,} more" if len(value) > _SHOWN_ITEMS else ""
    return ", ".join(f"'{item}'" if isinstance(item, str) else short(item) for item in value[:_SHOWN_ITEMS]) + more


def _at(place: str, key: str) -> str:
    if not _WORD.fullmatch(key):
        return f"{place}[{key!r}]"
    return f"{place}.{key}" if place else key


def _between(place: str, before: Any, after: Any) -> list[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        return _of_dicts(place, before, after)
    if isinstance(before, list) and isinstance(after, list):
        if _are_named(before) and _are_named(after):
            return _of_named(place, before, after)
        if _are_single(before) and _are_single(after):
            return _of_values(place, before, after)
        return _by_position(place, before, after)
    # 1 == 1.0 == True in Python, and not in a fingerprint.
    return [] if json.dumps(before) == json.dumps(after) else [Change(place, "changed", before, after)]


def _of_dicts(place: str, before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    found: list[Change] = []
    for key in [*before, *[key for key in after if key not in before]]:
        if key not in after:
            found.append(Change(_at(place, key), "removed", before[key], None))
        elif key not in before:
            found.append(Change(_at(place, key), "added", None, after[key]))
        else:
            found += _between(_at(place, key), before[key], after[key])
    return found


def _are_named(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in items)


def _of_named(place: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Change]:
    """Compare lists of {name, params}: the same step is the same name, the second one of a name is `name#2`."""
    first, second = _by_name(before), _by_name(after)
    found: list[Change] = []
    for name in [*first, *[name for name in second if name not in first]]:
        if name not in second:
            found.append(Change(_at(place, name), "removed", first[name], None))
        elif name not in first:
            found.append(Change(_at(place, name), "added", None, second[name]))
        else:
            found += _of_dicts(_at(place, name), first[name], second[name])
    return found + _reordered(place, list(first), list(second))


def _by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    seen: Counter[str] = Counter()
    found = {}
    for item in items:
        name = item["name"]
        seen[name] += 1
        rest = {key: value for key, value in item.items() if key not in ("name", "params")}
        params = item.get("params", {})
        # `steps.tokenize.max_length` is what people write; `params` would say nothing.
        if isinstance(params, dict) and not set(params) & set(rest):
            flat = {**rest, **params}
        else:
            flat = {**rest, "params": params}
        found[name if seen[name] == 1 else f"{name}#{seen[name]}"] = flat
    return found


def _are_single(items: list[Any]) -> bool:
    keys = [json.dumps(item) for item in items]
    return len(set(keys)) == len(keys) and not any(isinstance(item, (dict, list)) for item in items)


def _of_values(place: str, before: list[Any], after: list[Any]) -> list[Change]:
    first, second = ({json.dumps(item): item for item in items} for items in (before, after))
    removed = [item for key, item in first.items() if key not in second]
    added = [item for key, item in second.items() if key not in first]
    found = [Change(place, "removed", removed, None)] if removed else []
    found += [Change(place, "added", None, added)] if added else []
    return found + _reordered(place, list(first.values()), list(second.values()))


def _reordered(place: str, before: list[Any], after: list[Any]) -> list[Change]:
    """Return whether what both hold stands in another order."""
    in_both = {json.dumps(item) for item in before} & {json.dumps(item) for item in after}
    first, second = ([item for item in items if json.dumps(item) in in_both] for items in (before, after))
    return [Change(place, "reordered", first, second)] if first != second else []


def _by_position(place: str, before: list[Any], after: list[Any]) -> list[Change]:
    found: list[Change] = []
    for at in range(max(len(before), len(after))):
        if at >= len(after):
            found.append(Change(f"{place}[{at}]", "removed", before[at], None))
        elif at >= len(before):
            found.append(Change(f"{place}[{at}]", "added", None, after[at]))
        else:
            found += _between(f"{place}[{at}]", before[at], after[at])
    return found
