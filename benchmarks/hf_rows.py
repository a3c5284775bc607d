"""Convert raymill's prepared rows for HF Trainer, so that both sides of a benchmark train on the same rows."""

from __future__ import annotations

from typing import Any


def datasets_of(prepared: Any) -> dict[str, Any]:
    """Return the training and validation rows as `datasets.Dataset` with columns input_ids, labels and length."""
    from datasets import Dataset

    parts = {}
    for name in ("train", "validation"):
        rows = prepared.part(name)
        ids = [rows.inputs(row).tolist() for row in range(len(rows))]
        columns = {"input_ids": ids, "labels": rows.targets.tolist(), "length": [len(row) for row in ids]}
        parts[name] = Dataset.from_dict(columns)
    return parts


def quiet() -> None:
    """Turn off the warnings and progress bars of transformers."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
