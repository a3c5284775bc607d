"""The folder of one run: its spec as given and in full, what it was made with, its log, its progress, its report."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from cluster.errors import ResourceError, SpecError, nearest
from cluster.files import read_json, write_bytes, write_json
from trainer.runs import environment
from trainer.spec.run import RunSpec
from trainer.tasks import resolve

SPEC = "spec.yaml"


#: The spec with every key it left open: what a repetition goes by, whatever the defaults are then.
RESOLVED = "resolved.yaml"


RAY_LOG = "ray.log"


_NAME = re.compile(r"-([a-z]+)-\d{8}-\d{6}-[0-9a-f]{6}$")


_LOCK = ".lock"


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
    save_resolved(spec, folder)
    environment.write(folder)
    return folder


def kind_of(folder: Path) -> str:
    """Return what the run in `folder` does: train, tune, run, ... A spec's name may hold such a word too."""
    found = _NAME.search(folder.name)
    return found[1] if found else ""


def save_resolved(spec: RunSpec, folder: Path) -> None:
    """Write the spec with every key."""
    _write_yaml(resolve.resolved(spec), folder / RESOLVED)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a run to this process while the block runs. Raises `ResourceError` if another one has it: it still goes on.

    The system lets go of the lock when a process ends, however it ends.
    """
    lock = FileLock(str(folder / _LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResourceError(
            f"another process still works on the run {folder.name}", "wait for it, or stop it, and go on then"
        ) from None
    try:
        yield
    finally:
        lock.release()


def find(run: str, storage: Path) -> Path:
    """Return the folder of a run that is named by its path or by its name under the storage. Raises `SpecError`."""
    for folder in (Path(run).expanduser(), _runs(storage) / run):
        if (folder / RESOLVED).is_file():
            return folder.absolute()
    there = [path.name for path in _runs(storage).glob("*") if (path / RESOLVED).is_file()]
    raise SpecError(
        f"there is no run {run!r} in {_runs(storage)}, nor such a folder", nearest(run, sorted(there)[-10:])
    )


def find_all(storage: Path) -> list[Path]:
    """Return the folders of all runs that trained or searched, oldest first."""
    folders = [path for path in _runs(storage).glob("*") if kind_of(path) in ("train", "tune", "run")]
    return sorted(folders, key=lambda path: path.name.split("-")[-3:])


def spec_of(folder: Path) -> RunSpec:
    """Return the whole spec of the run in `folder`."""
    return resolve.load(folder / RESOLVED)


def save_spec(spec: RunSpec, path: Path) -> None:
    """Write a spec as the YAML that `raymill run` takes."""
    _write_yaml(spec.model_dump(mode="json", exclude_unset=True), path)


def _write_yaml(raw: dict[str, Any], path: Path) -> None:
    write_bytes(path, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).encode())


def note_prepared(folder: Path, prepared: Path) -> None:
    """Write down where the prepared rows of the run lie."""
    write_json(folder / PREPARED, {"folder": str(prepared)})


def prepared_of(folder: Path) -> Path | None:
    """Return where the prepared rows of the run lie, or None where it did not come to that."""
    return Path(read_json(folder / PREPARED)["folder"]) if (folder / PREPARED).is_file() else None


def _runs(storage: Path) -> Path:
    return storage / "runs"
