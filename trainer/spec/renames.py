"""Renamed keys and values of the spec. An old one is refused, and the error names the new one.

To rename a key or a value, add a line to `KEYS` or `VALUES`; nothing else has to change. Keys are dotted and complete;
`*` stands for the index of a list item.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cluster.errors import SpecError

#: Old key -> new key. Keys below a renamed one are renamed with it.
KEYS = {
    "data.allow": "data.allow_issues",
    "data.steps.*.balance.how": "data.steps.*.balance.method",
    "data.steps.*.normalise": "data.steps.*.normalize",
    "train.layer_decay": "train.layerwise_lr_decay",
    "tune.points": "tune.initial_points",
    "tune.load": "tune.load_test",
    "evaluate.mistakes": "evaluate.max_mistakes_shown",
    "promote.minimum": "promote.min_value",
    "serve.target_inputs": "serve.target_ongoing_requests",
    "serve.idle_s": "serve.downscale_delay_s",
    "serve.too_long": "serve.overlong",
    "serve.otlp": "serve.otlp_endpoint",
    "cluster.sharding": "cluster.strategy",
}

#: Key by its present name -> {old value: new value}.
VALUES = {
    "data.image.mode": {"grey": "gray"},
    "tune.algorithm": {"optuna": "tpe"},
    "serve.overlong": {"refuse": "reject"},
}

_SPACE = "tune.space."
_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


def new_key(key: str) -> str | None:
    """Return the present name of a dotted key, or None if it is not renamed. `tune.space.KEY` follows KEY."""
    if key.startswith(_SPACE):
        inner = new_key(key.removeprefix(_SPACE))
        return inner and f"{_SPACE}{inner}"
    indexes = _INDEX.findall(key)
    name = _INDEX.sub("*", key)
    while (longer := _rename_once(name)) is not None:  # a key may be renamed twice
        name = longer
    for index in indexes:
        name = name.replace("*", index, 1)
    return None if name == key else name


def _rename_once(key: str) -> str | None:
    for old, new in KEYS.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return None


def new_value(key: str, value: object) -> str | None:
    """Return the present name of a value of `key`, or None if the value is not renamed. `key` may be an old name."""
    return VALUES.get(new_key(key) or key, {}).get(value) if isinstance(value, str) else None


def explain_renamed_key(key: str, value: object = None) -> str | None:
    """Return the message for an old key with `value`; None if the key is not renamed."""
    name = new_key(key)
    if name is None:
        return None
    renamed_value = new_value(key, value)
    return f"{key}: renamed; use {name}{f': {renamed_value}' if renamed_value else ''}"


def check_key(key: str) -> None:
    """Raise `SpecError` if a key is renamed."""
    message = explain_renamed_key(key)
    if message:
        raise SpecError(message, "rename the key; `raymill schema` lists all keys")


def find_old_keys(raw: Any, section: str = "") -> Iterator[str]:
    """Yield the renamed keys in a mapping that was read from a spec's file."""
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for name, value in items:
        key = f"{section}{name}"
        if new_key(key):
            yield key
        else:
            yield from find_old_keys(value, f"{key}.")
