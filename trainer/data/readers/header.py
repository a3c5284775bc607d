"""List the columns of a file without reading its rows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.data.arrow import holds_bytes
from trainer.data.readers.blocks import Reasons
from trainer.data.readers.columnar import ARROW_FILE, class_names
from trainer.data.readers.delimited import open_delimited
from trainer.data.readers.delimited_rows import NUL_SIGN
from trainer.data.readers.dialect import SEPARATORS, detect_dialect
from trainer.data.readers.json_items import json_items
from trainer.data.readers.jsonl import parse_row
from trainer.data.readers.read import file_errors
from trainer.data.readers.text_stream import TextStream, open_text
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.streams import open_binary, open_random_access

# Lines of a jsonl file that are searched for keys.
_JSONL_LINES = 1000
# What the values of a jsonl column hold, if some hold more than others.
_ORDER = ("values", "lists", "nested")


class FileColumn(NamedTuple):
    """A column of a file, and what the format says about it."""

    name: str
    holds: str = "values"
    """values; lists (of tags, for example); bytes (of images); or nested: objects, or lists of lists."""
    is_fraction: bool = False
    """Whether the format stores floating-point numbers, which cannot be labels."""


def list_columns(file: SourceFile) -> list[FileColumn]:
    """Return the columns of a file, in order; for jsonl, the keys of its first 1,000 lines.

    Columns in the names of folders come last. Raises `DataError` if the file cannot be read in its format.
    """
    with file_errors(file):
        own = [column for column in _own_columns(file) if column.name not in file.partition]
    return [*own, *(FileColumn(name) for name in file.partition)]


def _own_columns(file: SourceFile) -> list[FileColumn]:
    if file.format in ("parquet", "arrow"):
        with open_random_access(file.path) as source:
            return _columns_of_schema(_read_schema(source, file.format))
    with open_binary(file.path) as stream:
        text = open_text(stream, file.path, file.reading.encoding)
        if file.format == "jsonl":
            return _jsonl_columns(text, file.path)
        header = open_delimited(text, file.path, file.format, file.reading).header
        return [FileColumn(_printable(name)) for name in header]


def describe_reading(file: SourceFile) -> str:
    """Return a sentence about a text file's encoding and separator, if they are not those of its extension."""
    if file.format not in SEPARATORS:
        return ""
    with file_errors(file), open_binary(file.path) as stream:
        text = open_text(stream, file.path, file.reading.encoding)
        sign = detect_dialect(text.head, file.format, file.reading).separator
    facts = []
    if sign != SEPARATORS[file.format]:
        facts.append(f"its cells are separated by {'tabs' if sign == chr(9) else repr(sign)}")
    if text.encoding != "utf-8":
        facts.append(f"its text is {text.encoding.upper()}")
    return f"{Path(file.path).name}: {' and '.join(facts)}." if facts else ""


def _printable(name: str) -> str:
    """Return a column's name with bytes that are no text, and NUL, replaced."""
    return name.replace(NUL_SIGN, "\ufffd").encode("utf-8", "replace").decode()


def _jsonl_columns(text: TextStream, path: str) -> list[FileColumn]:
    holds: dict[str, str] = {}
    fractions: set[str] = set()
    for index, line in enumerate(itertools.islice(json_items(text, path), _JSONL_LINES)):
        reasons: Reasons = {}
        row = parse_row(line, index, {"row": ""}, reasons) if line.strip() else {}
        for name, value in {} if reasons else row.items():
            is_nested = isinstance(value, dict) or (
                isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
            )
            kind = "nested" if is_nested else "lists" if isinstance(value, list) else "values"
            holds[name] = max(kind, holds.get(name, "values"), key=_ORDER.index)
            if isinstance(value, float):
                fractions.add(name)
    return [FileColumn(name, kind, name in fractions) for name, kind in holds.items()]


def _read_schema(source: pa.NativeFile, file_format: str) -> pa.Schema:
    if file_format == "parquet":
        with pq.ParquetFile(source) as file:
            return file.schema_arrow
    is_file = source.read(len(ARROW_FILE)) == ARROW_FILE
    source.seek(0)
    with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source) as reader:
        return reader.schema


def _columns_of_schema(schema: pa.Schema) -> list[FileColumn]:
    named = class_names(schema.metadata)
    columns = []
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        is_nested = pa.types.is_nested(kind) and not (is_list and not pa.types.is_nested(kind.value_type))
        is_unreadable = is_nested or pa.types.is_duration(kind) or pa.types.is_interval(kind)
        holds = "bytes" if holds_bytes(kind) else "nested" if is_unreadable else "lists" if is_list else "values"
        is_fraction = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        columns.append(FileColumn(field.name, holds, is_fraction and field.name not in named))
    return columns
