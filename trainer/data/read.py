"""Raw files to blocks of rows, each row with its number and, if it cannot be read, the reason.

Nothing is dropped: a row that cannot be used is yielded with `reason` set and goes to the quarantine file.
Block columns: `row` (int64, from 1, without the header), one string column a role, `reason` (string, null when usable).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import DataError, nearest
from cluster.text import is_unicode
from trainer.data.sources import SourceFile

_BLOCK_ROWS = 16_384
# No message has more lines; a row of a file with an unbalanced quote has.
_MAX_LINES = 1000

csv.field_size_limit(1 << 26)


def read_blocks(file: SourceFile, columns: dict[str, str]) -> Iterator[pa.Table]:
    """Yield the rows of `file` in order. `columns` maps each role to the file's column.

    Raises `DataError` if the file as a whole is not what it claims to be, or lacks a column.
    """
    reader = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}[file.format]
    n_rows = 0
    try:
        for block in reader(Path(file.path), columns):
            n_rows += len(block)
            yield block
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise DataError(
            f"{file.path} cannot be read as {file.format}: {first}", "repair the file, or set data.format"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file.path} is not UTF-8 text: {error.reason}", "save it as UTF-8") from error
    except OSError as error:
        raise DataError(
            f"{file.path} cannot be read: {error.strerror or error}", "check the file and its permissions"
        ) from error
    if n_rows == 0:
        raise DataError(f"{file.path} holds no rows", "give a file with rows in it")


def _must_have(columns: dict[str, str], found: list[str], path: Path) -> None:
    for role, column in columns.items():
        if column not in found:
            raise DataError(
                f"{path} has no column '{column}' for the {role} (it has: {', '.join(found) or 'none'})",
                f"{nearest(column, found)} Set data.columns: {{{role}: NAME}}",
            )
        if found.count(column) > 1:
            raise DataError(
                f"{path} has {found.count(column)} columns called '{column}'", "rename all but the one that is meant"
            )


def _read_csv(path: Path, columns: dict[str, str]) -> Iterator[pa.Table]:
    """The standard library's reader: it keeps the count of rows exact and refuses a quote that is never closed.

    At some 500,000 rows/s it is no bottleneck beside tokenizing at 20,000 to 40,000.
    """
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        _must_have(columns, header, path)
        places = {role: header.index(column) for role, column in columns.items()}
        number = 0
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                raise DataError(
                    f"{path}: row {number + 1}, which begins before line {reader.line_num}, is not csv: {error}",
                    'close the quote, and write a quote inside a cell twice: ""',
                ) from error
            if not cells:
                continue  # an empty line
            number += 1
            rows.append({"row": number, **_csv_row(cells, len(header), places)})
            if len(rows) >= _BLOCK_ROWS:
                yield _rows_table(rows, columns)
                rows = []
    if rows:
        yield _rows_table(rows, columns)


def _csv_row(cells: list[str], n_columns: int, places: dict[str, int]) -> dict[str, str | None]:
    if len(cells) != n_columns:
        shown: dict[str, str | None] = dict.fromkeys(places)
        shown[next(iter(places))] = _readable(",".join(cells))
        return {**shown, "reason": "wrong number of cells"}
    values = {role: cells[place] for role, place in places.items()}
    reason = None
    if not all(is_unicode(value) for value in values.values()):
        reason = "invalid UTF-8"
    elif any(value.count("\n") > _MAX_LINES for value in values.values()):
        reason = f"over {_MAX_LINES} lines in one cell"  # an opening quote that found its end far below
    return {**{role: _readable(value) for role, value in values.items()}, "reason": reason}


def _readable(text: str) -> str:
    """Return `text` with what cannot be written as UTF-8 shown as the replacement character."""
    return (
        text if is_unicode(text) else text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
    )


def _read_jsonl(path: Path, columns: dict[str, str]) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    seen_keys: dict[str, None] = {}
    any_row_whole = False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            values, reason, keys = _parse_line(line, columns)
            seen_keys.update(dict.fromkeys(keys))
            any_row_whole = any_row_whole or set(columns.values()) <= set(keys)
            rows.append({"row": number, **values, "reason": reason})
            if len(rows) >= _BLOCK_ROWS:
                if not any_row_whole:
                    _must_have(columns, list(seen_keys), path)
                yield _rows_table(rows, columns)
                rows = []
    if rows:
        if not any_row_whole and seen_keys:
            _must_have(columns, list(seen_keys), path)
        yield _rows_table(rows, columns)


def _rows_table(rows: list[dict[str, Any]], columns: dict[str, str]) -> pa.Table:
    schema = pa.schema([("row", pa.int64()), *((role, pa.string()) for role in columns), ("reason", pa.string())])
    return pa.Table.from_pylist(rows, schema)


def _parse_line(line: bytes, columns: dict[str, str]) -> tuple[dict[str, str | None], str | None, list[str]]:
    shown: dict[str, str | None] = dict.fromkeys(columns)
    first_role = next(iter(columns))
    try:
        text = line.decode("utf-8").removeprefix("\ufeff")  # some editors mark a file's first line
        found = json.loads(text)
    except UnicodeDecodeError:
        return {**shown, first_role: line.decode("utf-8", errors="replace").strip()}, "invalid UTF-8", []
    except (ValueError, RecursionError):
        return {**shown, first_role: text.strip()}, "not JSON", []
    if not isinstance(found, dict):
        return {**shown, first_role: text.strip()}, "not a JSON object", []
    reason = None
    for role, column in columns.items():
        value, problem = _as_text(found.get(column), role)
        shown[role] = value
        reason = reason or problem
    return shown, reason, list(found)


def _as_text(value: Any, role: str) -> tuple[str | None, str | None]:
    """Return the value as text, and what is wrong with it. A whole number or true/false may be a label."""
    if isinstance(value, str):
        if not is_unicode(value):  # JSON can spell half of a surrogate pair
            return value.encode("utf-8", errors="replace").decode(), "invalid UTF-8"
        return value, None
    if value is None:
        return None, None
    if isinstance(value, (bool, int)) and role == "label":
        return str(value).lower() if isinstance(value, bool) else str(value), None
    return json.dumps(value), f"{role} is no text"


def _read_parquet(path: Path, columns: dict[str, str]) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        _must_have(columns, file.schema_arrow.names, path)
        for role, column in columns.items():
            kind = file.schema_arrow.field(column).type
            whole = role == "label" and (pa.types.is_integer(kind) or pa.types.is_boolean(kind))
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if not (
                whole or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
            ):
                raise DataError(
                    f"{path}: column '{column}' for the {role} holds {kind}, not text",
                    f"name another column: data.columns: {{{role}: NAME}}",
                )
        next_row = 1
        for batch in file.iter_batches(batch_size=_BLOCK_ROWS, columns=list(columns.values())):
            values = {role: pc.cast(batch.column(name), pa.string()) for role, name in columns.items()}
            for column in values.values():
                column.validate(full=True)  # writers other than Arrow may have put bytes there that are not UTF-8
            numbers = pa.array(range(next_row, next_row + batch.num_rows), pa.int64())
            next_row += batch.num_rows
            yield pa.table({"row": numbers, **values, "reason": pa.nulls(batch.num_rows, pa.string())})
