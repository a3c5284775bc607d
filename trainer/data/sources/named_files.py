"""The files that one path, pattern or address names: the file, the rows of a folder, or what a pattern matches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cluster.errors import DataError, suggest
from trainer.data.parts import PARTS
from trainer.data.sources.folder_contents import check_holds_rows, read_folder
from trainer.data.sources.hive import read_partition
from trainer.data.sources.hub import is_saved_dataset, list_saved_files
from trainer.data.sources.local_pattern import first_pattern, is_pattern, match_files, match_paths
from trainer.data.sources.remote import is_remote, list_remote_files, not_a_folder_error, without_options
from trainer.data.sources.row_folder import ROW_ENDINGS, is_row
from trainer.data.sources.source_file import INPUT, SourceFile, choose_format
from trainer.data.sources.walk import FolderFile
from trainer.spec.format import FormatSpec

#: Files that tools leave beside others: a pattern that matches them does not mean them.
_BESIDE = (".crc", ".md5", ".sha1", ".sha256", ".sha512", ".asc", ".sig")
_BESIDE_NAMES = ("thumbs.db", "desktop.ini", "_success", "_metadata", "_common_metadata")


def expand_remote(pattern: str, part: str, reading: FormatSpec) -> Iterator[SourceFile]:
    """Yield the files that an address names."""
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


def expand_local(pattern: str, part: str, reading: FormatSpec) -> Iterator[SourceFile]:
    """Yield the files that a local path or a pattern names."""
    paths = find_local(pattern, part)
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
        is_text = reading.kind == "text" and is_row(path.name, "text")
        if reading.kind in ROW_ENDINGS and not is_text:
            raise not_a_folder_error(str(path), reading.kind, part)
        if size == 0:
            raise _empty_file_error(str(path))
        file_format = choose_format(str(path), path.name, reading.kind)
        partition = read_partition(path.parts[first:-1])
        yield _source_file(str(path), file_format, part, reading, partition, size, is_one_of_many)


def _expand_folder(folder: str, part: str, reading: FormatSpec) -> Iterator[SourceFile]:
    """Yield the folder itself if its files are rows, else its tables. Raises `DataError` if it holds neither."""
    contents = read_folder(folder, reading.kind, classes=part in PARTS)
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


def files_left_out(pattern: str, part: str, reading: FormatSpec) -> list[FolderFile]:
    """Return the files that a path, a pattern or an address names and that are no rows."""
    if is_remote(pattern):
        listed = list_remote_files(pattern, part)
        is_folder = listed[0].is_folder
        paths = [(without_options(file.path), file.size) for file in listed]
    else:
        local = find_local(pattern, part)
        is_folder = local[0].is_dir()
        if is_folder and reading.kind in ("auto", "arrow") and is_saved_dataset(local[0]):
            return []
        paths = [(str(path), path.stat().st_size) for path in local]
    if is_folder:
        return read_folder(pattern, reading.kind, classes=part in PARTS).left_out
    return [FolderFile(path, path, "", size) for path, size in paths if len(paths) > 1 and _is_beside(path, size)]


def _source_name(part: str, path: str) -> str:
    """Return the path as messages show it: after the spec's key, or alone if a command names the file."""
    return repr(path) if part == INPUT else f"data.{part}={path!r}"


def _is_beside(path: str, size: int) -> bool:
    """Whether a file that a pattern matches is no file of rows: a checksum, a marker, or empty."""
    name = PurePosixPath(path).name.lower()
    return size == 0 or name.endswith(_BESIDE) or name in _BESIDE_NAMES


def _empty_file_error(path: str) -> DataError:
    return DataError(f"{path} is empty", "give a file with rows in it")


def find_local(pattern: str, part: str) -> list[Path]:
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
    folders = match_paths(pattern)
    if folders:
        raise DataError(
            f"{_source_name(part, pattern)} matches only folders, for example {folders[0]}",
            f"let it end with the names of files: {pattern.rstrip('/')}/**",
        )
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
