"""List the runs under a storage folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raymill.session import STORAGE, storage_folder


def runs(*, storage: str | Path = STORAGE) -> list[dict[str, Any]]:
    """Return every run that trains or searches, oldest first, each as a dict: `run`, `kind`, `folder`, `finished`.

    A finished run also has those of `metrics`, `model`, `version` and `promoted` that its result holds.
    """
    from cluster.files import read_json
    from trainer.runs.folder import list_runs, run_kind
    from trainer.runs.journal import RESULT

    listed = []
    for folder in list_runs(storage_folder(storage)):
        result = folder / RESULT
        outcome = read_json(result) if result.is_file() else {}
        fields = {key: outcome[key] for key in ("metrics", "model", "version", "promoted") if key in outcome}
        listed.append(
            {
                "run": folder.name,
                "kind": run_kind(folder),
                "folder": str(folder),
                "finished": bool(outcome),
                **fields,
            }
        )
    return listed
