"""The files a spec names: found, opened once, digested."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError, nearest
from cluster.files import sha256, sha256_of

_ENDINGS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


class SourceFile(NamedTuple):
    """One file of raw rows."""

    path: str
    format: str
    part: str
    """train, validation or test"""
    place: int
    """Place among all files of the run, which orders the rows."""


def find(given: str | list[str], part: str, file_format: str = "auto", first_index: int = 0) -> list[SourceFile]:
    """Return the files of one part of the data in a fixed order. Raises `DataError` for what is not there."""
    found: list[SourceFile] = []
    for pattern in [given] if isinstance(given, str) else given:
        for path in _expand(pattern, part):
            found.append(SourceFile(str(path), _format(path, file_format), part, first_index + len(found)))
    if not found:
        raise DataError(f"data.{part} names no file", "give a path, a glob or a list of them")
    return found


def refuse_twice(files: list[SourceFile]) -> None:
    """Raise `DataError` for a file that is named twice: held-out rows would be trained on, or rows would count double."""
    seen: dict[Path, SourceFile] = {}
    for file in files:
        path = Path(file.path).resolve()
        if path in seen:
            raise DataError(
                f"{file.path} is in data.{seen[path].part} and again in data.{file.part}",
                "name every file once; a glob may take in too much",
            )
        seen[path] = file


def digest(files: list[SourceFile]) -> str:
    """Return one hex digest of the content of `files` and what each is for; names and places do not matter."""
    try:
        return sha256_of([[file.part, file.format, sha256(Path(file.path))] for file in files])
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}", "check the file and its permissions"
        ) from error


def _expand(pattern: str, part: str) -> list[Path]:
    if "://" in pattern:
        raise DataError(
            f"data.{part}={pattern!r}: only local paths are read", "copy the file to a folder that every node sees"
        )
    path = Path(pattern)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataError(
            f"data.{part}={pattern[:80]!r} cannot be read: {error.strerror}", "correct the path or its permissions"
        ) from error
    if path.is_dir():
        raise DataError(f"data.{part}={pattern!r} is a folder", f"name its files, as {path / '*.csv'}")
    if path.is_file():
        return [path]
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
    if matches:
        return matches
    if glob.has_magic(pattern):
        raise DataError(f"data.{part}={pattern!r} matches no file", "correct the pattern")
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({nearest(path.name, beside)})" if beside and len(beside) <= 50 else ""
    raise DataError(
        f"data.{part}={pattern!r}: there is no such file{hint}", "correct the path; it is relative to the spec's file"
    )


def _format(path: Path, given: str) -> str:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "give a file with rows in it")
    if given != "auto":
        return given
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        raise DataError(
            f"{path} ends in '{ending}', so its format is not known",
            "rename it to .csv, .jsonl or .parquet, or set data.format",
        )
    return _ENDINGS[ending]
