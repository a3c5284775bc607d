"""What a spec's `data` names: found, put in a fixed order, digested. Each kind of place has its own `source_*.py`."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cluster.errors import DataError, nearest
from cluster.files import sha256, sha256_of
from trainer.data.parts import PARTS
from trainer.data.sources import folder as source_folder
from trainer.data.sources import hub, query
from trainer.data.sources import remote as source_remote
from trainer.data.sources.streams import COMPRESSIONS
from trainer.spec.data import Query, Sources

_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_KNOWN = ".csv, .tsv, .jsonl, .parquet or .arrow"


#: The part of files that a command names, and no spec.
INPUT = "input"


class SourceFile(NamedTuple):
    """One file of raw rows, or one folder whose files are the rows; plain values, so that it travels as a dict."""

    path: str
    """Local path or remote address, as it may be shown: it never holds a secret."""
    format: str
    """csv, tsv, jsonl, parquet, arrow, or of a folder text or images"""
    part: str
    """train, validation or test"""
    place: int
    """Place among all files of the run, which orders the rows."""


def find(
    given: Sources, part: str, file_format: str = "auto", first_index: int = 0, *, snapshots: Path | None = None
) -> list[SourceFile]:
    """Return the files of one part of the data in a fixed order.

    Rows of a hub dataset or a database query are read here, once, into a file under `snapshots`. Raises `DataError` for
    what is not there, cannot be reached, or would need a secret in the spec.
    """
    found: list[SourceFile] = []
    for path, kind in _all(given, part, file_format, snapshots):
        found.append(SourceFile(path, kind, part, first_index + len(found)))
    if not found:
        raise _names_nothing(part)
    return found


def check(given: Sources, part: str) -> None:
    """Raise `DataError` for a secret, a wrong address, URL or name, and a local file that is not there.

    Nothing is read and nothing connected to, so this can be done before anything is written.
    """
    if isinstance(given, Query):
        query.check(given, part)
        return
    patterns = [given] if isinstance(given, str) else given
    if not patterns:
        raise _names_nothing(part)
    for pattern in patterns:
        if hub.is_hub(pattern):
            hub.check(pattern, part)
        elif source_remote.is_remote(pattern):
            source_remote.check(pattern, part)
    for pattern in patterns:
        if not source_remote.is_remote(pattern):
            _there(pattern, part)


def is_fetched(given: Sources) -> bool:
    """Whether the rows have to be read from a database or the hub before there is a file of them."""
    named = given if isinstance(given, list) else [given]
    return any(isinstance(each, Query) or hub.is_hub(each) for each in named)


def refuse_twice(files: list[SourceFile]) -> None:
    """Raise `DataError` for a file that is named twice: held-out rows would be trained on, or rows would count double."""
    seen: dict[str, SourceFile] = {}
    for file in files:
        seen_before = seen.get(_identity(file))
        if seen_before:
            raise _twice(file, seen_before)
        seen[_identity(file)] = file
    folders = {path for path, file in seen.items() if file.format in source_folder.ENDINGS}
    for path, file in seen.items() if folders else ():
        above = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in folders), None)
        if above:
            raise _twice(file, seen[above])


def digest(files: list[SourceFile]) -> str:
    """Return one hex digest of the content of `files` and what each is for; names and places do not matter.

    Remote files are not downloaded for it: they go by address, size and time of change.
    """
    try:
        return sha256_of([[file.part, file.format, _packing(file), _content(file)] for file in files])
    except OSError as error:
        raise DataError(
            f"{error.filename or files[0].path} cannot be read: {error.strerror or error}",
            "check the file and its permissions",
        ) from error


def _packing(file: SourceFile) -> str:
    """How a file claims to be compressed: the same bytes under another ending are read in another way, or not at all."""
    ending = Path(source_remote.without_options(file.path)).suffix.lower()
    return ending if ending in COMPRESSIONS else ""


def _names_nothing(part: str) -> DataError:
    return DataError(f"data.{part} names no file", "give a path, a glob or a list of them")


def _what(part: str, given: str) -> str:
    """Return what a message calls a path: by the spec's key, if it has one."""
    return repr(given) if part == INPUT else f"data.{part}={given!r}"


def _twice(file: SourceFile, other: SourceFile) -> DataError:
    return DataError(
        f"{file.path} is in data.{other.part} and again in data.{file.part}",
        "name every file once; a glob may take in too much",
    )


def _identity(file: SourceFile) -> str:
    if source_remote.is_remote(file.path):
        return str(PurePosixPath(source_remote.without_options(file.path)))
    return Path(file.path).resolve().as_posix()


def _content(file: SourceFile) -> str:
    if file.format in source_folder.ENDINGS:
        items = source_folder.items(file.path, file.format)
        return sha256_of([[item.relative, item.stamp or sha256(Path(item.path))] for item in items])
    return source_remote.stamp(file.path) if source_remote.is_remote(file.path) else sha256(Path(file.path))


def _all(given: Sources, part: str, file_format: str, snapshots: Path | None) -> Iterator[tuple[str, str]]:
    if isinstance(given, Query):
        yield str(query.snapshot(given, part, snapshots)), "arrow"
        return
    for pattern in [given] if isinstance(given, str) else given:
        if hub.is_hub(pattern):
            yield str(hub.snapshot(pattern, part, snapshots)), "arrow"
        elif source_remote.is_remote(pattern):
            yield from _remote(pattern, part, file_format)
        else:
            yield from _local(pattern, part, file_format)


def _remote(pattern: str, part: str, file_format: str) -> Iterator[tuple[str, str]]:
    folder = file_format if file_format in source_folder.ENDINGS else None
    for found in source_remote.expand(pattern, part, folder=folder):
        if not folder and found.size == 0:
            raise DataError(f"{found.path} is empty", "give a file with rows in it")
        yield found.path, _format(found.path, source_remote.without_options(found.path), file_format)


def _local(pattern: str, part: str, file_format: str) -> Iterator[tuple[str, str]]:
    paths = _there(pattern, part)
    if paths[0].is_dir():
        yield from _folder(paths[0], part, file_format)
        return
    for file in paths:
        if file_format in source_folder.ENDINGS:
            raise source_remote.no_folder(str(file), file_format, part)
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty", "give a file with rows in it")
        yield str(file), _format(str(file), file.name, file_format)


def _there(pattern: str, part: str) -> list[Path]:
    """Return the folder, the file, or the files that a local path or a glob names."""
    path = Path(pattern)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataError(
            f"{_what(part, pattern[:80])} cannot be read: {error.strerror}", "correct the path or its permissions"
        ) from error
    return [path] if path.is_dir() or path.is_file() else _matches(pattern, part)


def _matches(pattern: str, part: str) -> list[Path]:
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
    if matches:
        return matches
    if glob.has_magic(pattern):
        raise DataError(f"{_what(part, pattern)} matches no file", "correct the pattern")
    path = Path(pattern)
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({nearest(path.name, beside)})" if beside and len(beside) <= 50 else ""
    where = "the working directory" if part == INPUT else "the spec's file"
    raise DataError(
        f"{_what(part, pattern)}: there is no such file{hint}", f"correct the path; it is relative to {where}"
    )


def _folder(path: Path, part: str, file_format: str) -> Iterator[tuple[str, str]]:
    """A folder is a saved dataset, or holds a folder of texts or images for each class; any other must name its files."""
    if file_format in ("auto", "arrow") and hub.is_saved(path):
        for file in hub.saved_files(path, part):
            yield str(file), "arrow"
        return
    kind = file_format
    if kind == "auto":
        kind = source_folder.kind_of(path, classes=part in PARTS) or "auto"
    if kind not in source_folder.ENDINGS:
        raise DataError(
            f"{_what(part, str(path))} is a folder",
            f"name its files, as {path / '*.csv'}; a folder of texts or images has a folder of .txt or .png files for each class",
        )
    source_folder.must_hold_rows(str(path), kind, part)
    yield str(path), kind


def _format(shown: str, name: str, given: str) -> str:
    """Return the format of a file by what the spec says, else by its ending; `name` is without remote options."""
    if given in source_folder.ENDINGS:
        return given
    plain = Path(name)
    compressed = plain.suffix.lower() in COMPRESSIONS
    if compressed:
        plain = plain.with_suffix("")
    ending = plain.suffix.lower()
    if given == "auto" and ending not in _ENDINGS:
        raise DataError(
            f"{shown} ends in '{ending}', so its format is not known", f"rename it to {_KNOWN}, or set data.format"
        )
    kind = _ENDINGS[ending] if given == "auto" else given
    if compressed and kind in ("parquet", "arrow"):
        raise DataError(f"{shown} is a compressed {kind} file", f"unpack it: {kind} compresses its own columns")
    return kind
