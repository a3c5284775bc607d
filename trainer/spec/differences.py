"""Compare specs key by key: with the defaults, and with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.spec.run import RunSpec

# A spec that sets nothing but the keys that have no default. The optional sections are there for their defaults.
_SMALLEST = {
    "name": "x",
    "data": {"train": "x"},
    "model": {"lora": {}},
    "tune": {"space": {"train.epochs": {"choice": [1]}}},
    "deploy": {},
}


def flatten_spec(raw: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return the values of a spec by dotted key. Lists stay whole, without the options in them that are not set."""
    flat: dict[str, Any] = {}
    for name, value in raw.items():
        key = f"{section}{name}"
        if isinstance(value, Mapping) and value:
            flat |= flatten_spec(value, f"{key}.")
        else:
            flat[key] = _without_unset(value)
    return flat


def changed_keys(raw: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys whose values are not the defaults, by dotted key.

    `raw` is the spec with every key and `written` the spec as the user wrote it. Keys that the user names, such as those
    of a feature, have no defaults: of them, those that are written are returned. So are lists as they are written.
    """
    defaults = flatten_spec(RunSpec.model_validate(_SMALLEST).model_dump(mode="json"))
    own = flatten_spec(written)
    return {
        key: own.get(key, value) if isinstance(value, list) else value
        for key, value in flatten_spec(raw).items()
        if value != defaults.get(key) and (key in defaults or key in own)
    }


def differing_keys(specs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys whose values differ among specs, each with one value per spec; None if a spec does not set it."""
    flat = [flatten_spec(raw) for raw in specs]
    keys = dict.fromkeys(key for values in flat for key in values)
    by_key = {key: [values.get(key) for values in flat] for key in keys}
    return {key: values for key, values in by_key.items() if any(value != values[0] for value in values[1:])}


def _without_unset(value: Any) -> Any:
    """Return a value without the options in it that are None: a step has all other steps' names as such options."""
    if isinstance(value, list):
        return [_without_unset(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _without_unset(item) for name, item in value.items() if item is not None}
    return value
