"""TODO docstring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.data.parts import PARTS
from trainer.data.sources import resolve
from trainer.data.sources.resolve import SourceFile
from trainer.spec.run import RunSpec


def source_files(spec: RunSpec) -> list[SourceFile]:
    """Return all files of the spec's data; raises `DataError` for the first that is not there.

    A database query and a dataset of the hub are read here, into a file under the storage folder.
    """
    snapshots = Path(spec.storage) / "snapshots"
    files: list[SourceFile] = []
    for part, given in _given(spec):
        files += resolve.find(given, part, spec.data.format, first_index=len(files), snapshots=snapshots)
    resolve.refuse_twice(files)
    return files


def must_be_there(spec: RunSpec) -> None:
    """Raise `DataError` for the first file of the spec's data that is not there, and for a secret in the spec.

    Queries and hub datasets are not read.
    """
    for part, given in _given(spec):
        resolve.check(given, part)
        if not resolve.is_fetched(given):
            resolve.find(given, part, spec.data.format)


def is_fetched(spec: RunSpec) -> bool:
    """Whether some rows of `spec` come from a database or the hub, so that naming its files takes a while."""
    return any(resolve.is_fetched(given) for _, given in _given(spec))


def _given(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    yield from ((part, getattr(spec.data, part)) for part in PARTS if getattr(spec.data, part))
