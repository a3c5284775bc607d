"""The folder of one run: its spec as written and with every key, its environment, log, progress and report."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from cluster.errors import ResourceError, SpecError, suggest
from cluster.files import read_json, write_bytes, write_json
from trainer.runs.environment import write_environment
from trainer.spec.parse import read_spec_file
from trainer.spec.renames import find_old_keys, new_key
from trainer.spec.run import RunSpec
from trainer.tasks.load_spec import load_spec, resolve_defaults

#: The spec as the user wrote it.
SPEC_FILE = "spec.yaml"
#: The spec with every key, defaults included. Repeating a run uses it, so later defaults do not change the run.
RESOLVED_SPEC_FILE = "resolved.yaml"
RAY_LOG = "ray.log"
#: The path of the run's prepared folder.
PREPARED_FILE = "prepared.json"

_LOCK_FILE = ".lock"
_NAME_ENDING = re.compile(r"-([a-z]+)-\d{8}-\d{6}-[0-9a-f]{6}$")


def create_run(spec: RunSpec, kind: str) -> Path:
    """Create a new folder under the spec's storage, with the spec and the environment in it, and return it.

    Its name is `<spec name>-<kind>-<UTC time>-<random part>`. Raises `ResourceError` if the storage cannot be written.
    """
    created_at = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = _runs_folder(Path(spec.storage)) / f"{spec.name}-{kind}-{created_at}-{uuid.uuid4().hex[:6]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ResourceError(
            f"storage={spec.storage!r} cannot be written: {error.strerror}", "name a folder you may write to"
        ) from error
    save_spec(spec, folder / SPEC_FILE)
    save_resolved_spec(spec, folder)
    write_environment(folder)
    return folder


def run_kind(folder: Path) -> str:
    """Return what the run in `folder` does: train, tune, run, ...; an empty string if the folder is not that of a run.

    Only the end of the folder's name counts, because a spec's own name may contain such a word.
    """
    ending = _NAME_ENDING.search(folder.name)
    return ending[1] if ending else ""


def save_resolved_spec(spec: RunSpec, folder: Path) -> None:
    """Write the spec with every key."""
    _write_yaml(resolve_defaults(spec), folder / RESOLVED_SPEC_FILE)


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the run's lock while the block runs. Raises `ResourceError` if another process holds it.

    The operating system releases the lock when the process ends, however it ends.
    """
    lock = FileLock(str(folder / _LOCK_FILE))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResourceError(
            f"another process still works on the run {folder.name}",
            "wait until it ends, or stop it, and then try again",
        ) from None
    try:
        yield
    finally:
        lock.release()


def find_run(run: str, storage: Path) -> Path:
    """Return the folder of a run, given its path or its name under the storage. Raises `SpecError` if there is none."""
    for folder in (Path(run).expanduser(), _runs_folder(storage) / run):
        if _is_run(folder):
            return folder.absolute()
    names = sorted(path.name for path in _runs_folder(storage).glob("*") if _is_run(path))
    raise SpecError(
        f"{run!r} is neither a run in {_runs_folder(storage)} nor the folder of a run", suggest(run, names[-10:])
    )


def list_runs(storage: Path) -> list[Path]:
    """Return the folders of all runs that train or search, oldest first."""
    folders = [path for path in _runs_folder(storage).glob("*") if run_kind(path) in ("train", "tune", "run")]
    return sorted(folders, key=lambda path: path.name.split("-")[-3:])


def load_run_spec(folder: Path, overrides: Iterable[str] = ()) -> RunSpec:
    """Return the complete spec of the run in `folder`, with overrides applied.

    Raises `SpecError` if a version of raymill with other keys wrote it.
    """
    path = folder / RESOLVED_SPEC_FILE
    try:
        return load_spec(path, overrides)
    except SpecError as error:
        old_key = next(find_old_keys(read_spec_file(path)), None)
        if old_key is None:
            raise
        raise SpecError(
            f"an earlier raymill wrote the run {folder.name}: its spec has `{old_key}`, now called `{new_key(old_key)}`",
            "rename the old keys in its spec, and start a new run",
        ) from error


def save_spec(spec: RunSpec, path: Path) -> None:
    """Write a spec as YAML that `raymill run` accepts."""
    _write_yaml(spec.model_dump(mode="json", exclude_unset=True), path)


def save_prepared_path(folder: Path, prepared: Path) -> None:
    """Record the path of the run's prepared folder."""
    write_json(folder / PREPARED_FILE, {"folder": str(prepared)})


def read_prepared_path(folder: Path) -> Path | None:
    """Return the path of the run's prepared folder; None if the run did not get that far."""
    path = folder / PREPARED_FILE
    return Path(read_json(path)["folder"]) if path.is_file() else None


def _is_run(folder: Path) -> bool:
    return (folder / RESOLVED_SPEC_FILE).is_file()


def _write_yaml(raw: dict[str, Any], path: Path) -> None:
    write_bytes(path, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).encode())


def _runs_folder(storage: Path) -> Path:
    return storage / "runs"
