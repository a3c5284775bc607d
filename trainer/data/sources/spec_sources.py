"""The source files of a spec's data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.data.parts import PARTS
from trainer.data.sources.folder_contents import count_endings
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.source_files import (
    check_named_once,
    check_source,
    find_source_files,
    is_fetched_source,
    list_left_out,
)
from trainer.spec.run import RunSpec


def list_source_files(spec: RunSpec) -> list[SourceFile]:
    """Return all files of the spec's data. Raises `DataError` for the first file that does not exist.

    Database queries are run and hub datasets are loaded, into files under the storage folder.
    """
    snapshots = Path(spec.storage) / "snapshots"
    files: list[SourceFile] = []
    for part, source in _sources(spec):
        files += find_source_files(source, part, spec.data.format, first_index=len(files), snapshots=snapshots)
    check_named_once(files)
    return files


def check_sources_exist(spec: RunSpec) -> None:
    """Raise `DataError` for the first file of the spec's data that does not exist, and for a secret in the spec.

    Database queries are not run and hub datasets are not loaded.
    """
    for part, source in _sources(spec):
        check_source(source, part)
        if not is_fetched_source(source):
            find_source_files(source, part, spec.data.format)


def count_files_left_out(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """Return extension -> {files, examples} of the files that the spec's data names and that hold no rows."""
    return count_endings(
        [file for part, source in _sources(spec) for file in list_left_out(source, part, spec.data.format)]
    )


def has_fetched_source(spec: RunSpec) -> bool:
    """Whether some rows come from a database or the hub: then `list_source_files` fetches them, which takes a while."""
    return any(is_fetched_source(source) for _, source in _sources(spec))


def _sources(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    """Yield (part, source) for each part that the spec names."""
    yield from ((part, getattr(spec.data, part)) for part in PARTS if getattr(spec.data, part))
