"""The folder of one run: its spec as written and with every key, its environment, log, progress and report."""

from __future__ import annotations

import contextlib
import difflib
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cluster.errors import ResourceError, SpecError, suggest
from cluster.files import read_json, storage_error, write_bytes, write_json
from cluster.locks import owned_lock
from cluster.paths import expand_home
from trainer.runs.environment import write_environment
from trainer.spec.renames import find_old_keys, new_key
from trainer.spec.run import RunSpec
from trainer.spec.section import NAME_PATTERN
from trainer.spec.spec_file import read_spec_file
from trainer.spec.yaml_reader import dump_yaml
from trainer.tasks.load_spec import load_spec, resolve_defaults

#: The spec as the user wrote it.
SPEC_FILE = "spec.yaml"
#: The spec with every key, defaults included. Repeating a run uses it, so later defaults do not change the run.
RESOLVED_SPEC_FILE = "resolved.yaml"
RAY_LOG = "ray.log"
REPORT_FILE = "report.html"
#: The path of the run's prepared folder.
PREPARED_FILE = "prepared.json"

_LOCK_FILE = ".lock"
#: Folder of the storage with the locks of pipelines.
LOCKS_FOLDER = "locks"
# Longest time that `lock_run` waits for a lock: another process may hold it for a moment in `is_locked`.
_LOCK_WAIT_S = 0.5
_NAME_ENDING = re.compile(r"-([a-z]+)-(\d{8}-\d{6})-[0-9a-f]+$")
#: The kinds of runs that make a model. The other kinds, such as serve, leave a log or a report.
TRAINING_KINDS = ("run", "train", "tune")
#: Names the newest training or search instead of a run's name.
LAST = "last"


def create_run(spec: RunSpec, kind: str) -> Path:
    """Create a new folder under the spec's storage, with the spec and the environment in it, and return it.

    Its name is `<spec name>-<kind>-<UTC time>-<random part>`. Raises `ResourceError` if the storage cannot be written.
    """
    created_at = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = runs_folder(Path(spec.storage)) / f"{spec.name}-{kind}-{created_at}-{uuid.uuid4().hex[:6]}"
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
    """Return what the run in `folder` does: train, tune, run, ...; an empty string if its name is not that of a run.

    Only the end of the folder's name counts, because a spec's own name may contain such a word.
    """
    ending = _NAME_ENDING.search(folder.name)
    return ending[1] if ending else ""


def base_name(folder: Path) -> str:
    """Return the name of a run's folder without its kind, time and random part: the `name` of its spec."""
    return _NAME_ENDING.sub("", folder.name)


def save_resolved_spec(spec: RunSpec, folder: Path) -> None:
    """Write the spec with every key."""
    _write_yaml(resolve_defaults(spec), folder / RESOLVED_SPEC_FILE)


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the run's lock while the block runs. Raises `ResourceError` naming the process that holds it.

    The operating system releases the lock when the process ends, however it ends.
    """
    with owned_lock(folder / _LOCK_FILE, f"the run {folder.name}", _LOCK_WAIT_S):
        yield


@contextlib.contextmanager
def lock_pipeline(storage: Path, name: str, wait_s: float = 0) -> Iterator[None]:
    """Hold the lock `name` of a storage folder while the block runs, so that two runs of one pipeline never overlap.

    Processes on all machines that see the storage share it. Waits up to `wait_s`. Raises `ResourceError` naming the
    process that still holds it, or if the storage has no locks, and `SpecError` if `name` is not a name.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise SpecError(f"{name!r} is no name of a lock", "use lower-case letters, digits, `_` and `-`")
    folder = storage / LOCKS_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    with owned_lock(folder / name, f"the pipeline {name}", max(wait_s, _LOCK_WAIT_S)):
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the run's lock, which means that the run is running."""
    if not (folder / _LOCK_FILE).is_file():
        return False
    lock = FileLock(str(folder / _LOCK_FILE))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # storage that can only be read
        return False
    lock.release()
    return False


def find_run(run: str, storage: Path) -> Path:
    """Return the folder of a run.

    `run` is the folder's path, the run's name under the storage, the beginning of one name, or `last`: the training or
    search that started last. Raises `SpecError` if there is no such run, or more than one.
    """
    path = expand_home(run)
    if run and _is_run(path):
        return path.resolve() if ".." in path.parts else path.absolute()
    folders = {folder.name: folder for folder in list_runs(storage, kinds=None)}
    trainings = list_runs(storage)
    if run == LAST and trainings:
        return trainings[-1]
    if run in folders:
        return folders[run]
    matches = [name for name in folders if run and name.startswith(run)]
    if len(matches) == 1:
        return folders[matches[0]]
    if matches:
        shown = ", ".join(matches[-5:])
        raise SpecError(f"{run!r} is the beginning of {len(matches)} runs", f"write more of the name: {shown}")
    raise SpecError(
        f"{run!r} is neither a run in {runs_folder(storage)} nor the folder of a run",
        suggest(run, _similar_names(run, list(folders)), then="`raymill runs` lists them"),
    )


def _similar_names(run: str, names: list[str]) -> list[str]:
    """Return the run's name, or the beginning of names, that is closest to `run`; the newest names if none is close."""
    beginnings = {base_name(Path(name)) for name in names}
    return difflib.get_close_matches(run, [*names, *beginnings], n=1) or names[-10:]


def list_runs(storage: Path, kinds: Iterable[str] | None = TRAINING_KINDS) -> list[Path]:
    """Return the folders of all runs of these kinds, or of all kinds, oldest first. A link is not a run's folder."""
    selected = None if kinds is None else set(kinds)
    runs = [
        path
        for path in runs_folder(storage).glob("[!.]*")
        if _is_run(path) and not path.is_symlink() and (selected is None or run_kind(path) in selected)
    ]
    return sorted(runs, key=lambda path: (start_time(path), path.name))


def start_time(folder: Path) -> str:
    """Return when a run started, from its folder's name: `20260301-120000` in UTC; "" if the name is not a run's."""
    ending = _NAME_ENDING.search(folder.name)
    return ending[2] if ending else ""


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
    return folder.is_dir() and (bool(run_kind(folder)) or (folder / RESOLVED_SPEC_FILE).is_file())


def _write_yaml(raw: dict[str, Any], path: Path) -> None:
    write_bytes(path, dump_yaml(raw).encode())


def runs_folder(storage: Path) -> Path:
    """Return the folder that holds the runs of a storage folder."""
    return storage / "runs"
