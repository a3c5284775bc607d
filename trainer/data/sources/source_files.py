"""Find the files that a spec's `data` names, in a fixed order, and digest them.

Each kind of source has its own module in this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cluster.errors import DataError
from cluster.files import file_sha256, json_sha256
from trainer.data.sources.hub import (
    check_hub_name,
    is_hub_name,
    snapshot_hub_dataset,
)
from trainer.data.sources.named_files import expand_local, expand_remote, files_left_out, find_local
from trainer.data.sources.query import check_query, snapshot_query
from trainer.data.sources.remote import (
    check_address,
    is_remote,
    remote_stamp,
    without_options,
)
from trainer.data.sources.row_folder import ROW_ENDINGS, list_folder_items
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.streams import COMPRESSIONS, path_ending
from trainer.data.sources.walk import FolderFile
from trainer.spec.data import FileSpec, QuerySpec, Sources
from trainer.spec.format import FormatSpec


def find_source_files(
    source: Sources | list[str],
    part: str,
    file_format: str | FormatSpec = "auto",
    first_index: int = 0,
    *,
    snapshots: Path | None = None,
) -> list[SourceFile]:
    """Return the files of one part of the data in a fixed order.

    `file_format` holds where the source has no format of its own. A database query is run and a hub dataset is loaded,
    once, into a file under `snapshots`. Raises `DataError` for a source that does not exist, cannot be reached, or
    would need a secret in the spec.
    """
    files: list[SourceFile] = []
    if isinstance(source, QuerySpec):
        files.append(_snapshot_file(snapshot_query(source, part, snapshots), part))
    for pattern, own_format in _entries(source, file_format):
        if is_hub_name(pattern):
            files.append(_snapshot_file(snapshot_hub_dataset(pattern, part, snapshots), part))
        elif is_remote(pattern):
            files += expand_remote(pattern, part, own_format)
        else:
            files += expand_local(pattern, part, own_format)
    if not files:
        raise _no_file_error(part)
    return [file._replace(number=first_index + index) for index, file in enumerate(files)]


def list_left_out(source: Sources | list[str], part: str, file_format: str | FormatSpec = "auto") -> list[FolderFile]:
    """Return the files that a source names and that are no rows: in its folders, or matched by its patterns."""
    left_out: list[FolderFile] = []
    for pattern, own_format in _entries(source, file_format):
        if not is_hub_name(pattern):
            left_out += files_left_out(pattern, part, own_format)
    return left_out


def check_source(source: Sources, part: str) -> None:
    """Raise `DataError` for a secret, a wrong address, URL or name, and a local file that does not exist.

    Reads nothing and connects to nothing, so it can run before anything is written.
    """
    if isinstance(source, QuerySpec):
        check_query(source, part)
        return
    patterns = [pattern for pattern, _ in _entries(source, "auto")]
    if not patterns:
        raise _no_file_error(part)
    for pattern in patterns:
        if is_hub_name(pattern):
            check_hub_name(pattern, part)
        elif is_remote(pattern):
            check_address(pattern, part)
    for pattern in patterns:
        if not is_remote(pattern):
            find_local(pattern, part)


def is_fetched_source(source: Sources) -> bool:
    """Whether the rows of the source are first fetched from a database or the hub into a file."""
    return isinstance(source, QuerySpec) or any(is_hub_name(pattern) for pattern, _ in _entries(source, "auto"))


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
        return json_sha256(
            [
                [file.part, file.format, _compression(file), _digest_content(file), file.options, file.partition]
                for file in files
            ]
        )
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


def _identity(file: SourceFile) -> str:
    if is_remote(file.path):
        return str(PurePosixPath(without_options(file.path)))
    return Path(file.path).resolve().as_posix()


def _entries(source: Sources | list[str], file_format: str | FormatSpec) -> Iterator[tuple[str, FormatSpec]]:
    """Yield the paths, patterns and addresses of a source, each with its format; none for a query."""
    default = file_format if isinstance(file_format, FormatSpec) else FormatSpec(kind=file_format)  # type: ignore[arg-type]
    for entry in source if isinstance(source, list) else [source]:
        if isinstance(entry, FileSpec):
            yield entry.path, entry.format
        elif isinstance(entry, str):
            yield entry, default


def _snapshot_file(path: Path, part: str) -> SourceFile:
    return SourceFile(str(path), "arrow", part, 0, size=path.stat().st_size)
