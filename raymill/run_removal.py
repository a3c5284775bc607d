"""Remove runs from a storage folder."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from raymill.run_listing import RegisteredRun, versions_by_run
from raymill.session import STORAGE, storage_folder

_DAY_S = 86_400.0


class _Candidate(NamedTuple):
    """A run that may be removed."""

    folder: Path
    bytes: int
    obstacle: str
    """Why it stays; empty if nothing speaks against removing it."""
    fix: str


def remove_runs(
    runs: Iterable[str | Path] = (),
    *,
    older_than_days: float | None = None,
    storage: str | Path = STORAGE,
    force: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Remove runs: those named, or all whose files have not changed for `older_than_days`. `dry_run` only lists them.

    Each of `runs` is a name, the beginning of one name, a folder's path or `last`. A running run is never removed, and
    the run of a registered version only with `force`. Such a version still works without its run: it has its own copy
    of the model, and its held-out rows are in the prepared folder. But the run's report, log and curves are lost, and it
    can no longer be repeated.

    Returns `removed` (a list of `run`, `folder` and `bytes`), `bytes` in total, and `skipped` (a list of `run` and
    `reason`): runs that are old, but stay. Raises `UserError` if a named run cannot be removed; then none is removed.
    """
    from cluster.errors import ResourceError
    from cluster.files import remove_folder, remove_leftovers
    from trainer.runs.folder import lock_run, runs_folder

    root = runs_folder(storage_folder(storage))
    named = list(runs)
    _check_selection(named, older_than_days)
    versions = versions_by_run(root.parent)
    if older_than_days is None:
        candidates = [_examine(folder, root, versions, force=force) for folder in _find_runs(named, root)]
        for candidate in candidates:
            if candidate.obstacle:
                raise ResourceError(f"{candidate.folder.name} is not removed: {candidate.obstacle}", candidate.fix)
    else:
        old = _old_runs(root, older_than_days)
        candidates = [_examine(folder, root, versions, force=force) for folder in old]
    removed: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for candidate in candidates:
        if candidate.obstacle:
            skipped.append({"run": candidate.folder.name, "reason": candidate.obstacle})
            continue
        if not dry_run:
            with lock_run(candidate.folder):  # it may have been resumed meanwhile
                remove_folder(candidate.folder)
        removed.append({"run": candidate.folder.name, "folder": str(candidate.folder), "bytes": candidate.bytes})
    if not dry_run:
        remove_leftovers(root)
    return {"removed": removed, "bytes": sum(entry["bytes"] for entry in removed), "skipped": skipped}


def _check_selection(named: list[str | Path], older_than_days: float | None) -> None:
    from cluster.errors import UserError

    if bool(named) == (older_than_days is not None):
        raise UserError(
            "name the runs to remove, or a number of days, but not both"
            if named
            else "neither runs nor a number of days are given, so there is nothing to remove",
            "write `raymill runs remove RUN...` or `raymill runs remove --older-than DAYS`",
        )
    if older_than_days is not None and not older_than_days >= 0:
        raise UserError(f"--older-than {older_than_days:g} is below 0", "give a number of days, for example 30")


def _find_runs(named: list[str | Path], root: Path) -> list[Path]:
    """Return the folders of the named runs, each once."""
    from trainer.runs.folder import find_run

    return list(dict.fromkeys(find_run(str(run), root.parent) for run in named))


def _old_runs(root: Path, days: float) -> list[Path]:
    """Return the runs of all kinds in which no file has changed for this number of days."""
    from trainer.runs.folder import list_runs
    from trainer.runs.run_summary import last_change

    oldest = time.time() - days * _DAY_S
    return [folder for folder in list_runs(root.parent, kinds=None) if last_change(folder) < oldest]


def _examine(folder: Path, root: Path, versions: dict[str, RegisteredRun], *, force: bool) -> _Candidate:
    """Return a run with its size and what speaks against removing it."""
    from cluster.files import folder_bytes
    from trainer.runs.folder import is_locked

    if folder.is_symlink():
        return _Candidate(folder, 0, "it is a link, and links are not followed", f"remove the link {folder} yourself")
    if folder.parent.resolve() != root.resolve():
        return _Candidate(folder, 0, f"{folder} is not in {root}", "give the storage it belongs to with `--storage`")
    folder = root / folder.name
    if is_locked(folder):
        return _Candidate(folder, 0, "it is running", "wait until it ends, or stop it with Ctrl-C")
    registered = versions.get(folder.name)
    if registered and not force:
        ref = registered.version.ref
        return _Candidate(
            folder,
            0,
            f"{ref} is registered from it",
            f"use `--force`: {ref} works without it, but the run's report, log and curves are lost, and "
            "it cannot be repeated",
        )
    return _Candidate(folder, folder_bytes(folder), "", "")
