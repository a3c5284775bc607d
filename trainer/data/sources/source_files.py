"""Find the files that a spec's `data` names, in a fixed order, and digest them.

Each kind of source has its own module in this package.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cluster.errors import DataError, suggest
from cluster.files import file_sha256, json_sha256
from trainer.data.parts import PARTS
from trainer.data.sources.hub import (
    check_hub_name,
    is_hub_name,
    is_saved_dataset,
    list_saved_files,
    snapshot_hub_dataset,
)
from trainer.data.sources.query import check_query, snapshot_query
from trainer.data.sources.remote import (
    check_address,
    is_remote,
    list_remote_files,
    not_a_folder_error,
    remote_stamp,
    without_options,
)
from trainer.data.sources.row_folder import (
    ROW_ENDINGS,
    check_holds_rows,
    detect_folder_format,
    list_folder_items,
)
from trainer.data.sources.streams import COMPRESSIONS, path_ending
from trainer.spec.data import QuerySpec, Sources

_FORMAT_OF_ENDING = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
#: The extensions of tables, for messages.
KNOWN_ENDINGS = ".csv, .tsv, .jsonl, .parquet or .arrow"

#: The `part` of files that a command names, not a spec.
INPUT = "input"


class SourceFile(NamedTuple):
    """A file of raw rows, or a folder whose files are the rows. Its values are plain, so it can be sent as a dict."""

    path: str
    """Local path or remote address. It never holds a secret, so messages may show it."""
    format: str
    """csv, tsv, jsonl, parquet or arrow; for a folder, text or images."""
    part: str
    """train, validation or test."""
    number: int
    """Index of the file among all files of the run, from 0; rows are in this order."""


def find_source_files(
    source: Sources, part: str, file_format: str = "auto", first_index: int = 0, *, snapshots: Path | None = None
) -> list[SourceFile]:
    """Return the files of one part of the data in a fixed order.

    A database query is run and a hub dataset is loaded, once, into a file under `snapshots`. Raises `DataError` for a
    source that does not exist, cannot be reached, or would need a secret in the spec.
    """
    paths = _expand(source, part, file_format, snapshots)
    files = [SourceFile(path, kind, part, first_index + index) for index, (path, kind) in enumerate(paths)]
    if not files:
        raise _no_file_error(part)
    return files


def check_source(source: Sources, part: str) -> None:
    """Raise `DataError` for a secret, a wrong address, URL or name, and a local file that does not exist.

    Reads nothing and connects to nothing, so it can run before anything is written.
    """
    if isinstance(source, QuerySpec):
        check_query(source, part)
        return
    patterns = [source] if isinstance(source, str) else source
    if not patterns:
        raise _no_file_error(part)
    for pattern in patterns:
        if is_hub_name(pattern):
            check_hub_name(pattern, part)
        elif is_remote(pattern):
            check_address(pattern, part)
    for pattern in patterns:
        if not is_remote(pattern):
            _find_local(pattern, part)


def is_fetched_source(source: Sources) -> bool:
    """Whether the rows of the source are first fetched from a database or the hub into a file."""
    sources = source if isinstance(source, list) else [source]
    return any(isinstance(entry, QuerySpec) or is_hub_name(entry) for entry in sources)


def file_format_of(path: Path) -> str | None:
    """Return the format of a table by its extension, without that of a compression, or None."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return _FORMAT_OF_ENDING.get(name.suffix.lower())


def check_named_once(files: list[SourceFile]) -> None:
    """Raise `DataError` for a file that is named twice: training could see held-out rows, or rows could count twice."""
    seen: dict[str, SourceFile] = {}
    for file in files:
        earlier = seen.get(_identity(file))
        if earlier:
            raise _named_twice_error(file, earlier)
        seen[_identity(file)] = file
    folders = {path for path, file in seen.items() if file.format in ROW_ENDINGS}
    for path, file in seen.items() if folders else ():
        above = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in folders), None)
        if above:
            raise _named_twice_error(file, seen[above])


def digest_files(files: list[SourceFile]) -> str:
    """Return one hex digest of the content and the part of each file; names and locations do not matter.

    Remote files are not downloaded: their address, size and modification time stand for their content.
    """
    try:
        return json_sha256([[file.part, file.format, _compression(file), _digest_content(file)] for file in files])
    except OSError as error:
        raise DataError(
            f"{error.filename or files[0].path} cannot be read: {error.strerror or error}",
            "check the file and its permissions",
        ) from error


def _compression(file: SourceFile) -> str:
    """Return the extension by which a file is decompressed: with another one, the same bytes would give other rows."""
    ending = path_ending(file.path)
    return ending if ending in COMPRESSIONS else ""


def _digest_content(file: SourceFile) -> str:
    if file.format in ROW_ENDINGS:
        items = list_folder_items(file.path, file.format)
        return json_sha256([[item.relative, item.stamp or file_sha256(Path(item.path))] for item in items])
    return remote_stamp(file.path) if is_remote(file.path) else file_sha256(Path(file.path))


def _no_file_error(part: str) -> DataError:
    return DataError(f"data.{part} names no file", "give a path, a glob, or a list of paths and globs")


def _named_twice_error(file: SourceFile, earlier: SourceFile) -> DataError:
    return DataError(
        f"{file.path} is in data.{earlier.part} and again in data.{file.part}",
        "name every file once; a glob may match more files than intended",
    )


def _source_name(part: str, path: str) -> str:
    """Return the path as messages show it: after the spec's key, or alone if a command names the file."""
    return repr(path) if part == INPUT else f"data.{part}={path!r}"


def _identity(file: SourceFile) -> str:
    if is_remote(file.path):
        return str(PurePosixPath(without_options(file.path)))
    return Path(file.path).resolve().as_posix()


def _expand(source: Sources, part: str, file_format: str, snapshots: Path | None) -> Iterator[tuple[str, str]]:
    """Yield (path, format) of each file of a source."""
    if isinstance(source, QuerySpec):
        yield str(snapshot_query(source, part, snapshots)), "arrow"
        return
    for pattern in [source] if isinstance(source, str) else source:
        if is_hub_name(pattern):
            yield str(snapshot_hub_dataset(pattern, part, snapshots)), "arrow"
        elif is_remote(pattern):
            yield from _expand_remote(pattern, part, file_format)
        else:
            yield from _expand_local(pattern, part, file_format)


def _expand_remote(pattern: str, part: str, file_format: str) -> Iterator[tuple[str, str]]:
    folder_format = file_format if file_format in ROW_ENDINGS else None
    for file in list_remote_files(pattern, part, folder_format=folder_format):
        if not folder_format and file.size == 0:
            raise DataError(f"{file.path} is empty", "give a file with rows in it")
        yield file.path, _choose_format(file.path, without_options(file.path), file_format)


def _expand_local(pattern: str, part: str, file_format: str) -> Iterator[tuple[str, str]]:
    paths = _find_local(pattern, part)
    if paths[0].is_dir():
        yield from _expand_folder(paths[0], part, file_format)
        return
    for file in paths:
        if file_format in ROW_ENDINGS:
            raise not_a_folder_error(str(file), file_format, part)
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty", "give a file with rows in it")
        yield str(file), _choose_format(str(file), file.name, file_format)


def _find_local(pattern: str, part: str) -> list[Path]:
    """Return the folder, the file, or the files that a local path or a glob names."""
    path = Path(pattern)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataError(
            f"{_source_name(part, pattern[:80])} cannot be read: {error.strerror}",
            "correct the path or its permissions",
        ) from error
    return [path] if path.is_dir() or path.is_file() else _match_glob(pattern, part)


def _match_glob(pattern: str, part: str) -> list[Path]:
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
    if matches:
        return matches
    if glob.has_magic(pattern):
        raise DataError(f"{_source_name(part, pattern)} matches no file", "correct the pattern")
    path = Path(pattern)
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({suggest(path.name, siblings)})" if siblings and len(siblings) <= 50 else ""
    base = "the working directory" if part == INPUT else "the folder of the spec"
    raise DataError(
        f"{_source_name(part, pattern)}: there is no such file{hint}",
        f"correct the path; it is relative to {base}",
    )


def _expand_folder(path: Path, part: str, file_format: str) -> Iterator[tuple[str, str]]:
    """Yield the files of a saved dataset, or the folder itself if its files are rows. Raises `DataError` for others."""
    if file_format in ("auto", "arrow") and is_saved_dataset(path):
        for file in list_saved_files(path, part):
            yield str(file), "arrow"
        return
    row_format = file_format
    if row_format == "auto":
        row_format = detect_folder_format(path, classes=part in PARTS) or "auto"
    if row_format not in ROW_ENDINGS:
        raise DataError(
            f"{_source_name(part, str(path))} is a folder",
            f"name its files, for example {path / '*.csv'}; a folder of texts or images has a subfolder "
            "of .txt or .png files for each class",
        )
    check_holds_rows(str(path), row_format, part)
    yield str(path), row_format


def _choose_format(path: str, name: str, file_format: str) -> str:
    """Return the format that the spec names, else that of the file's extension; `name` is without remote options."""
    if file_format in ROW_ENDINGS:
        return file_format
    plain = Path(name)
    is_compressed = plain.suffix.lower() in COMPRESSIONS
    if is_compressed:
        plain = plain.with_suffix("")
    ending = plain.suffix.lower()
    if file_format == "auto" and ending not in _FORMAT_OF_ENDING:
        raise DataError(
            f"{path} has the extension '{ending}', so its format is not known",
            f"change the extension to {KNOWN_ENDINGS}, or set `data.format`",
        )
    chosen = _FORMAT_OF_ENDING[ending] if file_format == "auto" else file_format
    if is_compressed and chosen in ("parquet", "arrow"):
        raise DataError(
            f"{path} is a compressed {chosen} file", f"decompress it: {chosen} files compress their columns themselves"
        )
    return chosen
