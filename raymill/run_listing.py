"""The runs under a storage folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raymill.session import STORAGE, storage_folder


def runs(*, storage: str | Path = STORAGE) -> list[dict[str, Any]]:
    """Return every run that trained or searched, oldest first: `run`, `kind`, `folder`, `finished`, and of a finished run
    its `metrics`, `model` and `version`."""
    from cluster.files import read_json
    from trainer.runs import folder as run_folder
    from trainer.runs.journal import RESULT

    listed = []
    for folder in run_folder.find_all(storage_folder(storage)):
        result = folder / RESULT
        outcome = read_json(result) if result.is_file() else {}
        shown = {key: outcome[key] for key in ("metrics", "model", "version", "promoted") if key in outcome}
        listed.append(
            {
                "run": folder.name,
                "kind": run_folder.kind_of(folder),
                "folder": str(folder),
                "finished": bool(outcome),
                **shown,
            }
        )
    return listed
