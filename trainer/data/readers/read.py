"""Raw files to blocks of rows, each row with its number and, if it cannot be read, the reason.

Nothing is dropped: a row that cannot be used is yielded with `reason` set and goes to the quarantine file.
Block columns: `row` (int64, from 1, without the header), one string column a role (large_binary for a binary one),
`reason` (string, null when usable); where a row is a file of its own also `path`. Each format has its own `read_*.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from cluster.errors import DataError
from cluster.files import json_sha256
from trainer.data.readers import columnar as column_reader
from trainer.data.readers import delimited, image_folder, jsonl, text_folder
from trainer.data.readers import file_cells as file_reader
from trainer.data.readers.blocks import BLOCK_ROWS as BLOCK_ROWS
from trainer.data.readers.read_options import ReadOptions
from trainer.data.sources import remote as source_remote
from trainer.data.sources import resolve
from trainer.data.sources import row_folder as source_folder
from trainer.data.sources.resolve import SourceFile
from trainer.data.sources.streams import damage_error, open_binary, open_random_access


def read_blocks(
    file: SourceFile,
    columns: dict[str, str],
    loose: frozenset[str] = frozenset(),
    binary: frozenset[str] = frozenset(),
) -> Iterator[pa.Table]:
    """Yield the rows of `file` in order, in blocks of `BLOCK_ROWS` rows; fewer in the last, and where they are long.

    `columns` maps each role to the file's column. A value of a role in `loose` may be any single one (number, true/false,
    date, moment in ISO 8601), what is to be predicted also a list, which is read as JSON; and it may be missing. Of the
    others a missing one is a reason. A value of a role in `binary` is bytes, or the path of a file that holds them,
    relative to the folder of `file`.
    Raises `DataError` if the file as a whole is not what it claims to be, cannot be reached, or lacks a column.
    """
    yield from _whole(file, _blocks(file, columns, frozenset(loose), frozenset(binary)))


def _whole(file: SourceFile, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the blocks; what is wrong with the file as a whole is a `DataError`."""
    n_rows = 0
    try:
        for block in blocks:
            n_rows += len(block)
            yield block
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowIndexError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or ["damaged"])[0]
        raise damage_error(file.path, error) or DataError(
            f"{file.path} cannot be read as {file.format}: {first}", "repair the file, or set data.format"
        ) from error
    except Exception as error:
        known = damage_error(file.path, error)
        if known is None and not isinstance(error, OSError):
            raise
        raise known or _refused(file.path, error) from error
    if n_rows == 0:
        raise DataError(f"{file.path} holds no rows", "give a file with rows in it")


def digest_source_data(files: list[SourceFile], how: ReadOptions) -> str:
    """Return one hex digest of the content of `files`, as `sources.digest`, and of the files that their rows name."""
    own = resolve.digest_files(files)
    if not how.binary:
        return own
    return json_sha256([own, [file_reader.file_stamp(path) for file in files for path in _named(file, how)]])


def _named(file: SourceFile, how: ReadOptions) -> Iterator[str]:
    """Yield the paths that the rows of a file name; a folder's are known without it."""
    if file.format in source_folder.ROW_ENDINGS:
        return
    columns = {role: how.columns[role] for role in how.binary}
    for block in _whole(file, _rows(file, columns, how.loose, how.binary, as_paths=True)):
        named = [role for role in columns if pa.types.is_string(block[role].type)]
        if not named:
            return
        for role in named:
            yield from (file_reader.resolve_cell(cell, file.path) for cell in block[role].to_pylist() if cell)


def _blocks(
    file: SourceFile, columns: dict[str, str], loose: frozenset[str], binary: frozenset[str]
) -> Iterator[pa.Table]:
    found = _rows(file, columns, loose, binary)
    if not binary:
        return found
    # The paths of a folder's files are whole.
    return file_reader.load_files(found, "" if file.format == "images" else file.path, binary)


def _rows(
    file: SourceFile,
    columns: dict[str, str],
    loose: frozenset[str],
    binary: frozenset[str],
    *,
    as_paths: bool = False,
) -> Iterator[pa.Table]:
    if file.format == "images":
        yield from image_folder.read_image_folder(file.path, columns, loose)
    elif file.format == "text":
        yield from text_folder.read_text_folder(file.path, columns, loose)
    elif file.format in ("parquet", "arrow"):
        read_one = column_reader.read_parquet if file.format == "parquet" else column_reader.read_arrow
        with open_random_access(file.path) as source:
            yield from read_one(source, file.path, columns, loose, binary, as_paths=as_paths)
    else:
        with open_binary(file.path) as stream:
            if file.format == "jsonl":
                yield from jsonl.read_jsonl(stream, file.path, columns, loose)
            else:
                yield from delimited.read_delimited(
                    stream, file.path, columns, loose, "\t" if file.format == "tsv" else ","
                )


def _refused(path: str, error: BaseException) -> DataError:
    if source_remote.is_remote(path):
        return source_remote.remote_error(path, error)
    said = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"{path} cannot be read: {said}", "check the file and its permissions")
