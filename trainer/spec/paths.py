"""The paths that a spec holds, by key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Takes a key and its path, and returns the path to use instead.
ChangePath = Callable[[str, str], str]

_SOURCE_KEYS = ("train", "validation", "test")
_BASE = "model.base"


def change_paths(raw: dict[str, Any], change: ChangePath) -> dict[str, Any]:
    """Return a spec with the path of each source and base model replaced by what `change` returns for it.

    `raw` is a spec whose paths are absolute. Addresses, hub names and queries stay as they are.
    """
    data = dict(raw["data"])
    for key in _SOURCE_KEYS:
        source = data.get(key)
        if isinstance(source, list):
            data[key] = [_change_source(item, f"data.{key}", change) for item in source]
        elif source:
            data[key] = _change_source(source, f"data.{key}", change)
    changed = {**raw, "data": data}
    model = dict(raw.get("model") or {})
    if model.get("base"):
        changed["model"] = {**model, "base": _change_path(model["base"], _BASE, change)}
    tune = raw.get("tune") or {}
    bases = (tune.get("space") or {}).get(_BASE) or {}
    if bases.get("choice"):
        choice = [_change_path(base, f"tune.space.{_BASE}", change) for base in bases["choice"]]
        changed["tune"] = {**tune, "space": {**tune["space"], _BASE: {**bases, "choice": choice}}}
    return changed


def _change_source(source: Any, key: str, change: ChangePath) -> Any:
    if isinstance(source, str):
        return _change_path(source, key, change)
    return {**source, "path": _change_path(source["path"], key, change)} if "path" in source else source


def _change_path(path: str, key: str, change: ChangePath) -> str:
    return change(key, path) if path.startswith("/") else path
