"""A working directory to submit, and what to compare of the models that its runs make."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from support.tiny_text import tiny_spec, write_spec

# They name the run, its storage, or the time.
_OWN_FILES = ("lineage.json", "manifest.json", "spec.yaml")


def make_project(root: Path, base: Path, data: Path, storage: Path, **sections: Any) -> Path:
    """Write a spec, its data and a module of the user's own into `root`, and return it."""
    shutil.copytree(data, root / "data")
    (root / "shout.py").write_text("def clean(text):\n    return text.upper()\n")
    train = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
    spec: dict[str, Any] = tiny_spec(base, Path("data"), storage, **{"train": train, **sections})
    spec["data"]["steps"] = ["shout:clean"]
    write_spec(root / "run.yaml", spec)
    return root


def version_digests(storage: Path, model: str) -> dict[str, str]:
    """Return the SHA-256 of each file of a model's first version, without those that name the run."""
    version = storage / "models" / model / "versions" / "1"
    files = [path for path in version.rglob("*") if path.is_file() and path.name not in _OWN_FILES]
    return {path.relative_to(version).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
