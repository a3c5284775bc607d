"""raymill's prepared rows as HF Trainer takes them: both sides of a benchmark train on the same ones."""

from __future__ import annotations

from typing import Any


def datasets_of(prepared: Any) -> dict[str, Any]:
    """Return training and validation rows as `datasets.Dataset`: input_ids, labels, length."""
    from datasets import Dataset

    parts = {}
    for name in ("train", "validation"):
        rows = prepared.part(name)
        ids = [rows.inputs(row).tolist() for row in range(len(rows))]
        columns = {"input_ids": ids, "labels": rows.targets.tolist(), "length": [len(row) for row in ids]}
        parts[name] = Dataset.from_dict(columns)
    return parts


def quiet() -> None:
    """Turn transformers' warnings and progress bars off."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
