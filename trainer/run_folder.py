"""The folder of one run: its spec as given and in full, what it was made with, its log, its progress, its report."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import ResourceError, SpecError, nearest
from cluster.files import append_line, read_json, write_bytes, write_json
from trainer import run_environment, spec_load
from trainer.result import NOTICES
from trainer.spec import RunSpec

SPEC = "spec.yaml"
#: The spec with every key it left open: what a repetition goes by, whatever the defaults are then.
RESOLVED = "resolved.yaml"
RAY_LOG = "ray.log"
QUARANTINE = "quarantine.parquet"
#: Where the prepared rows of the run lie.
PREPARED = "prepared.json"


def create(spec: RunSpec, kind: str) -> Path:
    """Make and return a new folder under the storage, holding the spec and the environment.

    The name starts with the time in UTC, so that a listing is in order, and ends in a random part.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = _runs(Path(spec.storage)) / f"{spec.name}-{kind}-{stamp}-{uuid.uuid4().hex[:6]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ResourceError(
            f"storage={spec.storage!r} cannot be written: {error.strerror}", "name a folder you may write to"
        ) from error
    save_spec(spec, folder / SPEC)
    _write_yaml(spec_load.resolved(spec), folder / RESOLVED)
    run_environment.write(folder)
    return folder


def find(run: str, storage: Path) -> Path:
    """Return the folder of a run that is named by its path or by its name under the storage. Raises `SpecError`."""
    for folder in (Path(run).expanduser(), _runs(storage) / run):
        if (folder / RESOLVED).is_file():
            return folder.absolute()
    there = [path.name for path in _runs(storage).glob("*") if (path / RESOLVED).is_file()]
    raise SpecError(
        f"there is no run {run!r} in {_runs(storage)}, nor such a folder", nearest(run, sorted(there)[-10:])
    )


def spec_of(folder: Path) -> RunSpec:
    """Return the whole spec of the run in `folder`."""
    return spec_load.load(folder / RESOLVED)


def save_spec(spec: RunSpec, path: Path) -> None:
    """Write a spec as the YAML that `raymill run` takes."""
    _write_yaml(spec.model_dump(mode="json", exclude_unset=True), path)


def _write_yaml(raw: dict[str, Any], path: Path) -> None:
    write_bytes(path, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).encode())


def notice(folder: Path, text: str) -> None:
    """Write a sentence that whoever started the run should see, as that a checkpoint could not be written."""
    line = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "text": text}
    append_line(folder / NOTICES, json.dumps(line, ensure_ascii=False))


def note_prepared(folder: Path, prepared: Path) -> None:
    """Write down where the prepared rows of the run lie."""
    write_json(folder / PREPARED, {"folder": str(prepared)})


def prepared_of(folder: Path) -> Path | None:
    """Return where the prepared rows of the run lie, or None where it did not come to that."""
    return Path(read_json(folder / PREPARED)["folder"]) if (folder / PREPARED).is_file() else None


def _runs(storage: Path) -> Path:
    return storage / "runs"
