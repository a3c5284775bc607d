"""Raw files to blocks of rows, each row with its number and, if it cannot be read, the reason.

Nothing is dropped: a row that cannot be used is yielded with `reason` set and goes to the quarantine file.
Block columns: `row` (int64, from 1, without the header), one string column a role, `reason` (string, null when usable).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from cluster.errors import DataError, nearest
from trainer.data.sources import SourceFile

_BLOCK_ROWS = 16_384
_BLOCK_BYTES = 8 << 20


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
        raise DataError(f"{file.path} cannot be read as {file.format}: {first}", "repair the file, or set data.format") from error
    except OSError as error:
        raise DataError(f"{file.path} cannot be read: {error}", "check the file; it may be cut short") from error
    if n_rows == 0:
        raise DataError(f"{file.path} holds no rows", "give a file with rows in it")


def _must_have(columns: dict[str, str], found: list[str], path: Path) -> None:
    for role, column in columns.items():
        if column not in found:
            raise DataError(
                f"{path} has no column '{column}' for the {role} (it has: {', '.join(found) or 'none'})",
                f"{nearest(column, found)} Set data.columns: {{{role}: NAME}}",
            )


def _read_csv(path: Path, columns: dict[str, str]) -> Iterator[pa.Table]:
    wanted = list(columns.values())
    torn: list[pa.csv.InvalidRow] = []

    def keep(row: pa.csv.InvalidRow) -> str:
        torn.append(row)
        return "skip"

    parse = pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep)
    read = pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    with pa.csv.open_csv(
        path,
        read_options=read,
        parse_options=parse,
        # Bytes, so that one row that is not UTF-8 does not fail its whole block.
        convert_options=pa.csv.ConvertOptions(check_utf8=False, column_types={name: pa.binary() for name in wanted}),
    ) as reader:
        _must_have(columns, reader.schema.names, path)
        next_row = 1
        for batch in reader:
            # `number` counts the header as row 1; torn rows lie between the good rows of the block just parsed.
            gone = [row.number - 1 for row in torn if row.number is not None]
            numbers, next_row = _numbers(next_row, batch.num_rows, set(gone))
            values = {role: batch.column(batch.schema.get_field_index(name)) for role, name in columns.items()}
            yield _as_block(numbers, values)
            if torn:
                yield _torn_rows(torn, columns)
                torn.clear()
    if torn:
        yield _torn_rows(torn, columns)


def _numbers(first: int, count: int, gone: set[int]) -> tuple[list[int], int]:
    if not gone:
        return list(range(first, first + count)), first + count
    numbers: list[int] = []
    row = first
    while len(numbers) < count:
        if row not in gone:
            numbers.append(row)
        row += 1
    while row in gone:
        row += 1
    return numbers, row


def _torn_rows(torn: list[pa.csv.InvalidRow], columns: dict[str, str]) -> pa.Table:
    values: dict[str, pa.Array] = {role: pa.nulls(len(torn), pa.string()) for role in columns}
    first_role = next(iter(columns))
    values[first_role] = pa.array([row.text for row in torn], pa.string())
    reasons = pa.array(["wrong number of cells"] * len(torn), pa.string())
    rows = pa.array([(row.number or 0) - 1 for row in torn], pa.int64())
    return pa.table({"row": rows, **values, "reason": reasons})


def _as_block(numbers: list[int], raw: dict[str, pa.Array]) -> pa.Table:
    """Turn columns of bytes into strings; rows of which one is not UTF-8 get a reason."""
    bad: set[int] = set()
    values = {}
    for role, column in raw.items():
        try:
            values[role] = pc.cast(column, pa.string())
        except pa.ArrowInvalid:
            texts = []
            for place, cell in enumerate(column.to_pylist()):
                try:
                    texts.append(None if cell is None else cell.decode("utf-8"))
                except UnicodeDecodeError:
                    bad.add(place)
                    texts.append(cell.decode("utf-8", errors="replace"))
            values[role] = pa.array(texts, pa.string())
    reasons = pa.nulls(len(numbers), pa.string())
    if bad:
        reasons = pa.array(["invalid UTF-8" if place in bad else None for place in range(len(numbers))], pa.string())
    return pa.table({"row": pa.array(numbers, pa.int64()), **values, "reason": reasons})


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
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
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
            if not (whole or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise DataError(
                    f"{path}: column '{column}' for the {role} holds {kind}, not text",
                    f"name another column: data.columns: {{{role}: NAME}}",
                )
        next_row = 1
        for batch in file.iter_batches(batch_size=_BLOCK_ROWS, columns=list(columns.values())):
            values = {role: pc.cast(batch.column(name), pa.string()) for role, name in columns.items()}
            numbers = list(range(next_row, next_row + batch.num_rows))
            next_row += batch.num_rows
            yield pa.table({"row": pa.array(numbers, pa.int64()), **values, "reason": pa.nulls(len(numbers), pa.string())})
