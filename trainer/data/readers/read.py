"""Read raw files as blocks of rows; each row has its number and, if it cannot be used, the reason.

No row is dropped: a row that cannot be used is yielded with `reason` set and goes to the quarantine. Columns of a
block: `row` (int64, from 1, not counting a header), one string column per role (large_binary for a binary role),
`reason` (string, null for a usable row), and `path` if each row is a file of its own. Each format has its own module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError, first_line
from cluster.files import json_sha256
from trainer.data.readers.blocks import BLOCK_ROWS as BLOCK_ROWS
from trainer.data.readers.blocks import to_block
from trainer.data.readers.columnar import read_arrow, read_parquet
from trainer.data.readers.delimited import read_delimited
from trainer.data.readers.file_cells import file_stamp, load_files, resolve_cell
from trainer.data.readers.image_folder import read_image_folder
from trainer.data.readers.jsonl import read_jsonl
from trainer.data.readers.read_options import ReadOptions
from trainer.data.readers.text_folder import read_text_folder
from trainer.data.readers.text_stream import invalid_reason, open_text
from trainer.data.sources.remote import is_remote, remote_error
from trainer.data.sources.row_folder import ROW_ENDINGS
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.source_files import digest_files
from trainer.data.sources.streams import damage_error, open_binary, open_random_access

_SHOWN_BYTES = 24

_NO_SIGNS: Mapping[str, str] = MappingProxyType({})


def read_blocks(
    file: SourceFile,
    columns: dict[str, str],
    loose: frozenset[str] = frozenset(),
    binary: frozenset[str] = frozenset(),
    decimal_signs: Mapping[str, str] = _NO_SIGNS,
    nested: frozenset[str] = frozenset(),
) -> Iterator[pa.Table]:
    """Yield the rows of `file` in order, in blocks of `BLOCK_ROWS` rows (fewer at the end and if rows are long).

    `columns` maps each role to the file's column. A value of a role in `loose` may be missing, or any single value
    (number, true/false, date, time in ISO 8601); the target may also be a list, which is read as JSON. A row with a
    missing value of any other role cannot be used. A value of a role in `binary` is bytes, or the path of a file that
    holds them, relative to the folder of `file`. `decimal_signs` maps a role to the
    decimal sign of its texts, if that is not the point; numbers that are not texts are spelled with that sign as well.
    Lists and objects of a role in `nested` are read as JSON text.
    Raises `DataError` if the file is not in the format `file.format`, cannot be reached, or lacks a column.
    """
    options = ReadOptions(columns, frozenset(loose), frozenset(binary), decimal_signs, frozenset(nested))
    yield from _with_file_errors(file, _read_blocks(file, options))


def digest_source_data(files: list[SourceFile], options: ReadOptions) -> str:
    """Return one hex digest of the content of `files` (see `digest_files`) and of the files that their rows name."""
    digest = digest_files(files)
    if not options.binary:
        return digest
    return json_sha256([digest, [file_stamp(path) for file in files for path in _named_paths(file, options)]])


def _with_file_errors(file: SourceFile, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the blocks; turn errors of the file as a whole into a `DataError`."""
    n_rows = 0
    with file_errors(file):
        for block in blocks:
            n_rows += len(block)
            yield block
    if n_rows == 0 and not file.is_one_of_many:
        raise DataError(f"{file.path} holds no rows", "give a file with rows in it")


@contextlib.contextmanager
def file_errors(file: SourceFile) -> Iterator[None]:
    """Turn an error about the file as a whole, raised while the block runs, into a `DataError`."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowIndexError, UnicodeDecodeError) as error:
        raise damage_error(file.path, error) or DataError(
            f"{file.path} cannot be read as {file.format}: {first_line(error)}{_describe_start(file.path)}",
            "repair the file, or set `data.format`",
        ) from error
    except Exception as error:
        damage = damage_error(file.path, error)
        if damage is None and not isinstance(error, OSError):
            raise
        raise damage or _read_error(file.path, error) from error


def _describe_start(path: str) -> str:
    """Return the first bytes of a file, for the end of a message."""
    with contextlib.suppress(OSError, DataError), open_binary(path) as stream:
        return f"; it begins with {stream.read(_SHOWN_BYTES)!r}"
    return ""


def _named_paths(file: SourceFile, options: ReadOptions) -> Iterator[str]:
    """Yield the paths that the rows of a file name. The digest of a folder already covers its files."""
    if file.format in ROW_ENDINGS:
        return
    columns = {role: options.columns[role] for role in options.binary}
    options = options._replace(columns=columns)
    for block in _with_file_errors(file, _read_format(file, options, as_paths=True)):
        path_roles = [role for role in columns if pa.types.is_string(block[role].type)]
        if not path_roles:
            return
        for role in path_roles:
            yield from (resolve_cell(cell, file.path) for cell in block[role].to_pylist() if cell)


def _read_blocks(file: SourceFile, options: ReadOptions) -> Iterator[pa.Table]:
    blocks = _read_format(file, options)
    if not options.binary:
        return blocks
    # The paths in an image folder are complete; others are relative to the file that names them.
    return load_files(blocks, "" if file.format == "images" else file.path, options.binary)


def _read_format(file: SourceFile, options: ReadOptions, *, as_paths: bool = False) -> Iterator[pa.Table]:
    """Yield the blocks of a file in its format. With `as_paths`, files that rows name are not opened."""
    if not file.partition:
        yield from _read_file(file, options, as_paths=as_paths)
        return
    of_file = {role: column for role, column in options.columns.items() if column not in file.partition}
    if not of_file:
        raise DataError(
            f"{file.path}: the names of its folders hold all the columns that are needed",
            "name a column of the file as well",
        )
    own = options._replace(
        columns=of_file, loose=options.loose & of_file.keys(), binary=options.binary & of_file.keys()
    )
    for block in _read_file(file, own, as_paths=as_paths):
        yield _add_partition(block, file, options.columns, options.loose)


def _read_file(file: SourceFile, options: ReadOptions, *, as_paths: bool) -> Iterator[pa.Table]:
    """Yield the blocks of a file; all columns are its own."""
    columns, loose = options.columns, options.loose
    if file.format == "images":
        yield from read_image_folder(file.path, columns, loose)
    elif file.format == "text":
        yield from read_text_folder(file.path, columns, loose, file.reading.encoding)
    elif file.format in ("parquet", "arrow"):
        read_columns = read_parquet if file.format == "parquet" else read_arrow
        with open_random_access(file.path) as source:
            yield from read_columns(source, file.path, options, as_paths=as_paths)
    else:
        with open_binary(file.path) as stream:
            text = open_text(stream, file.path, file.reading.encoding)
            if file.format == "jsonl":
                blocks = read_jsonl(text, file.path, options)
            else:
                blocks = read_delimited(text, file.path, columns, loose, file.format, file.reading)
            for block in blocks:
                yield _name_encoding(block, text.encoding)


def _name_encoding(block: pa.Table, encoding: str) -> pa.Table:
    """Return the block with the name of the file's own encoding in the reason for bytes that are no text."""
    if encoding == "utf-8" or not block["reason"].null_count < len(block):
        return block
    reasons = pc.replace_substring(block["reason"], invalid_reason("utf-8"), invalid_reason(encoding))
    return block.set_column(block.schema.get_field_index("reason"), "reason", reasons)


def _add_partition(block: pa.Table, file: SourceFile, columns: dict[str, str], loose: frozenset[str]) -> pa.Table:
    """Return the block with the columns that the names of folders hold, as the reader of a csv file would give them."""
    cells = {role: [file.partition[name] or ""] for role, name in columns.items() if name in file.partition}
    values = to_block(range(1), cells, {}, loose)
    for role in cells:
        block = block.add_column(
            list(columns).index(role) + 1, role, pa.array(values[role].to_pylist() * len(block), values[role].type)
        )
    missing = values["reason"][0].as_py()
    if missing is None:
        return block
    reasons = pc.fill_null(block["reason"], missing)
    return block.set_column(block.schema.get_field_index("reason"), "reason", reasons)


def _read_error(path: str, error: BaseException) -> DataError:
    if is_remote(path):
        return remote_error(path, error)
    message = getattr(error, "strerror", None) or first_line(error)
    return DataError(f"{path} cannot be read: {message}", "check the file and its permissions")
