"""Rows of preference training for a tiny causal model, and the spec of a short training with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_WORDS = ["refund", "order", "city", "password", "parcel", "Monday", "help", "settings"]


def preference_spec(folder: Path, model: Path, method: str | dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Write rows for the method into `folder`, and return the spec of a short training of `model`."""
    kind = method if isinstance(method, str) else method["kind"]
    write_rows = {"kto": _labels, "sft": _completions, "grpo": _completions}.get(kind, _pairs)
    path = folder / "rows.jsonl"
    rows = write_rows()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {
        "epochs": 2, "tokens_per_step": 160, "learning_rate": 0.002, "warmup_fraction": 0.0, "schedule": "constant",
        "precision": "fp32", "method": method, **changes.pop("train", {}),
    }  # fmt: skip
    return {
        "name": "preference",
        "task": "text-generation",
        "data": {"train": str(path), "columns": {role: role for role in rows[0]}},
        "model": {"base": str(model)},
        "track": {"every_steps": 1},
        "storage": str(folder / "storage"),
        **changes,
        "train": train,
    }


def _prompts() -> list[str]:
    return [f"{first} and {second} {number}:" for number in range(2) for first in _WORDS for second in _WORDS[:3]]


def _pairs() -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "chosen": " Thank you for your help", "rejected": f" the {_WORDS[row % 8]} is Monday"}
        for row, prompt in enumerate(_prompts())
    ]


def _labels() -> list[dict[str, Any]]:
    return [
        {"prompt": pair["prompt"], "completion": pair["chosen" if row % 2 else "rejected"], "desirable": bool(row % 2)}
        for row, pair in enumerate(_pairs())
    ]


def _completions() -> list[dict[str, Any]]:
    return [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in _pairs()]
