"""Stage a preparation: find its files, make its unfitted contract, and compute the key of its prepared folder."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import ResourceError
from cluster.files import json_sha256, mark_owner, remove_leftovers
from trainer.contract.contract import PREPARATION_VERSION, Contract
from trainer.data.folder import SUMMARY
from trainer.data.prepare.learned_files import add_learned_files
from trainer.data.readers.read import digest_source_data
from trainer.data.readers.read_options import read_options_of_spec
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.spec_sources import list_source_files
from trainer.spec.run import RunSpec
from trainer.steps.cleaner import dataset_steps
from trainer.tasks.catalog import get_task, is_custom_task
from trainer.tasks.custom import pin_task_source

#: Increment it when the layout of prepared folders changes.
_LAYOUT_VERSION = 5


class Staging(NamedTuple):
    """Everything about a preparation that is known before any row is read."""

    files: list[SourceFile]
    digest: str
    """Digest of the content of all files."""
    unfitted: Contract
    folder: Path
    """Temporary folder that holds the contract's files; it is removed at the end."""
    key: str
    """Digest of everything that decides what the prepared rows will be."""
    finished: Path | None
    """Prepared folder of an earlier run with the same key."""


def prepared_root(spec: RunSpec) -> Path:
    """Return the folder that holds all prepared folders."""
    return Path(spec.storage) / "prepared"


@contextlib.contextmanager
def stage_preparation(spec: RunSpec, files: list[SourceFile] | None) -> Iterator[Staging]:
    """Yield the staged preparation of `spec`; its folder exists while the block runs.

    `files` are the source files if they are already known. Raises `DataError` for missing files and `ResourceError` if
    the storage cannot be written.
    """
    files = list_source_files(spec) if files is None else files
    folder = _make_staging_folder(spec)
    try:
        unfitted = _make_contract(spec, files, folder)
        digest = digest_source_data(files, read_options_of_spec(spec, unfitted))
        versions = [PREPARATION_VERSION, _LAYOUT_VERSION]
        key = json_sha256([_prepare_settings(spec), digest, unfitted.fingerprint, versions])[:16]
        yield Staging(files, digest, unfitted, folder, key, _find_finished(spec, key))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_staging_folder(spec: RunSpec) -> Path:
    root = prepared_root(spec)
    folder = root / f".staging-{uuid.uuid4().hex[:8]}"
    try:
        remove_leftovers(root)
        folder.mkdir(parents=True)
        mark_owner(folder)
    except OSError as error:
        raise ResourceError(
            f"storage={spec.storage!r} cannot be written: {error.strerror}", "name a folder you may write to"
        ) from error
    return folder


def _make_contract(spec: RunSpec, files: list[SourceFile], folder: Path) -> Contract:
    """Return the unfitted contract; its files are in `folder`."""
    task = get_task(spec.task)
    add_learned_files(spec, task, files, folder)
    contract = task.make_contract(spec, folder)
    settings = task.target.settings(spec.data)
    contract = contract.model_copy(update={"fitted": {**settings, **contract.fitted}})
    return pin_task_source(contract, folder) if is_custom_task(spec.task) else contract


def _prepare_settings(spec: RunSpec) -> dict[str, Any]:
    """Return the settings that decide the prepared rows, besides the files and the contract."""
    data = spec.data
    return {
        "split": data.split.model_dump(mode="json"),
        "allow_issues": sorted(data.allow_issues),
        "labels": data.labels,
        "max_chars": data.max_chars,
        "max_bad_fraction": data.max_bad_fraction,
        "mode": data.mode,
        "features": {name: rules.model_dump(mode="json") for name, rules in data.features.items()},
        "steps": [step.model_dump(mode="json", exclude_none=True) for step in dataset_steps(data)],
    }


def _find_finished(spec: RunSpec, key: str) -> Path | None:
    return next((path for path in prepared_root(spec).glob(f"*-{key}") if (path / SUMMARY).is_file()), None)
