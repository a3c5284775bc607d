"""Find the files that a spec's `data` names, in a fixed order, and digest them.

Each kind of source has its own module in this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cluster.errors import DataError, suggest
from cluster.files import file_sha256, json_sha256
from trainer.data.parts import PARTS
from trainer.data.sources.folder_contents import FolderContents, check_holds_rows, read_folder
from trainer.data.sources.hive import read_partition
from trainer.data.sources.hub import (
    check_hub_name,
    is_hub_name,
    is_saved_dataset,
    list_saved_files,
    snapshot_hub_dataset,
)
from trainer.data.sources.local_pattern import first_pattern, is_pattern, match_files
from trainer.data.sources.query import check_query, snapshot_query
from trainer.data.sources.remote import (
    check_address,
    is_remote,
    list_remote_files,
    not_a_folder_error,
    remote_stamp,
    without_options,
)
from trainer.data.sources.row_folder import ROW_ENDINGS, list_folder_items
from trainer.data.sources.source_file import INPUT, SourceFile, choose_format
from trainer.data.sources.streams import COMPRESSIONS, path_ending
from trainer.data.sources.walk import FolderFile
from trainer.spec.data import FileSpec, QuerySpec, Sources
from trainer.spec.format import FormatSpec

#: Files that tools leave beside others: a pattern that matches them does not mean them.
_BESIDE = (".crc", ".md5", ".sha1", ".sha256", ".sha512", ".asc", ".sig")
_BESIDE_NAMES = ("thumbs.db", "desktop.ini", "_success", "_metadata", "_common_metadata")


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
            files += _expand_remote(pattern, part, own_format)
        else:
            files += _expand_local(pattern, part, own_format)
    if not files:
        raise _no_file_error(part)
    return [file._replace(number=first_index + index) for index, file in enumerate(files)]


def list_left_out(source: Sources | list[str], part: str, file_format: str | FormatSpec = "auto") -> list[FolderFile]:
    """Return the files that a source names and that are no rows: in its folders, or matched by its patterns."""
    left_out: list[FolderFile] = []
    for pattern, own_format in _entries(source, file_format):
        if is_hub_name(pattern):
            continue
        if is_remote(pattern):
            listed = list_remote_files(pattern, part)
            if listed[0].is_folder:
                left_out += read_folder(pattern, own_format.kind, classes=part in PARTS).left_out
            paths = [(without_options(file.path), file.size) for file in listed if not file.is_folder]
        else:
            paths_here = _find_local(pattern, part)
            if paths_here[0].is_dir():
                if not (own_format.kind in ("auto", "arrow") and is_saved_dataset(paths_here[0])):
                    left_out += read_folder(pattern, own_format.kind, classes=part in PARTS).left_out
                continue
            paths = [(str(path), path.stat().st_size) for path in paths_here]
        if len(paths) > 1:
            left_out += [FolderFile(path, path, "", size) for path, size in paths if _is_beside(path, size)]
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
            _find_local(pattern, part)


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


def _source_name(part: str, path: str) -> str:
    """Return the path as messages show it: after the spec's key, or alone if a command names the file."""
    return repr(path) if part == INPUT else f"data.{part}={path!r}"


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


def _expand_remote(pattern: str, part: str, reading: FormatSpec) -> Iterator[SourceFile]:
    listed = list_remote_files(pattern, part, folder_format=reading.kind if reading.kind in ROW_ENDINGS else None)
    if listed[0].is_folder:
        yield from _expand_folder(pattern, part, reading)
        return
    is_one_of_many = len(listed) > 1
    first = next((i for i, name in enumerate(pattern.split("/")) if any(sign in name for sign in "*?[")), 1 << 10)
    for file in listed:
        name = without_options(file.path)
        if is_one_of_many and _is_beside(name, file.size):
            continue
        if file.size == 0:
            raise _empty_file_error(file.path)
        file_format = choose_format(file.path, name, reading.kind)
        partition = read_partition(name.split("/")[first:-1])
        yield _source_file(file.path, file_format, part, reading, partition, file.size, is_one_of_many)


def _expand_local(pattern: str, part: str, reading: FormatSpec) -> Iterator[SourceFile]:
    paths = _find_local(pattern, part)
    if paths[0].is_dir():
        if reading.kind in ("auto", "arrow") and is_saved_dataset(paths[0]):
            for path in list_saved_files(paths[0], part):
                yield _source_file(str(path), "arrow", part, reading, {}, path.stat().st_size, False)
        else:
            yield from _expand_folder(str(paths[0]), part, reading)
        return
    is_one_of_many = len(paths) > 1
    first = first_pattern(pattern)
    for path in paths:
        size = path.stat().st_size
        if is_one_of_many and _is_beside(str(path), size):
            continue
        if reading.kind in ROW_ENDINGS:
            raise not_a_folder_error(str(path), reading.kind, part)
        if size == 0:
            raise _empty_file_error(str(path))
        file_format = choose_format(str(path), path.name, reading.kind)
        partition = read_partition(path.parts[first:-1])
        yield _source_file(str(path), file_format, part, reading, partition, size, is_one_of_many)


def _expand_folder(folder: str, part: str, reading: FormatSpec) -> Iterator[SourceFile]:
    """Yield the folder itself if its files are rows, else its tables. Raises `DataError` if it holds neither."""
    contents: FolderContents = read_folder(folder, reading.kind, classes=part in PARTS)
    check_holds_rows(folder, contents, reading.kind, _source_name(part, folder))
    if contents.format in ROW_ENDINGS:
        size = sum(file.size for file in contents.files)
        yield _source_file(folder, str(contents.format), part, reading, {}, size, False)
        return
    for file in contents.files:
        partition = read_partition(file.relative.split("/")[:-1])
        file_format = choose_format(file.path, without_options(file.path), str(contents.format))
        yield _source_file(file.path, file_format, part, reading, partition, file.size, True)


def _source_file(
    path: str, file_format: str, part: str, reading: FormatSpec, partition: dict[str, str | None], size: int, many: bool
) -> SourceFile:
    options = reading.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    return SourceFile(path, file_format, part, 0, options, partition, size, many)


def _snapshot_file(path: Path, part: str) -> SourceFile:
    return SourceFile(str(path), "arrow", part, 0, size=path.stat().st_size)


def _is_beside(path: str, size: int) -> bool:
    """Whether a file that a pattern matches is no file of rows: a checksum, a marker, or empty."""
    name = PurePosixPath(path).name.lower()
    return size == 0 or name.endswith(_BESIDE) or name in _BESIDE_NAMES


def _empty_file_error(path: str) -> DataError:
    return DataError(f"{path} is empty", "give a file with rows in it")


def _find_local(pattern: str, part: str) -> list[Path]:
    """Return the folder, the file, or the files that a local path or a pattern names."""
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
    if path.is_dir() or path.is_file():
        return [path]
    matches = match_files(pattern)
    if matches:
        return matches
    if is_pattern(pattern):
        raise DataError(f"{_source_name(part, pattern)} matches no file", "correct the pattern")
    raise _missing_file_error(pattern, part)


def _missing_file_error(pattern: str, part: str) -> DataError:
    path = Path(pattern)
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({suggest(path.name, siblings)})" if siblings and len(siblings) <= 50 else ""
    base = "the working directory" if part == INPUT else "the folder of the spec"
    return DataError(
        f"{_source_name(part, pattern)}: there is no such file{hint}",
        f"correct the path; it is relative to {base}",
    )
