"""The quarantine, the file of bad rows with their reasons, and the checks that stop a run with too many of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import DataError
from trainer.contract.contract import Contract
from trainer.data.arrow import read_ipc
from trainer.data.folder import BAD, INPUTS, QUARANTINE, SHARDS
from trainer.data.parts import PARTS
from trainer.data.prepare.block_maker import BlockStats
from trainer.data.prepare.verdicts import REASONS, SAMPLED
from trainer.data.readers.evidence import explain_reason
from trainer.data.sources.source_file import SourceFile, printable
from trainer.spec.data import ALLOWABLE_ISSUES
from trainer.spec.split import SplitSpec
from trainer.tasks.base import Task

# Reasons of rows whose start is in the first column that is read.
_TORN = ("wrong number of cells", "not JSON", "not a JSON object")
_SHOWN_CHARS = 120


class TooManyBadRows(DataError):
    """More rows are bad than the spec allows. `by_reason` counts them."""

    def __init__(self, problem: str, fix: str, by_reason: dict[str, int] | None = None) -> None:
        super().__init__(problem, fix)
        self.by_reason = by_reason or {}


def quarantine_columns(task: Task, contract: Contract) -> dict[str, pa.DataType]:
    """Return role -> Arrow type for the raw values written to the quarantine."""
    return {role: pa.binary() if role in task.binary_roles else pa.string() for role in contract.columns}


def write_quarantine(
    folder: Path,
    stats: list[BlockStats],
    verdicts: list[np.ndarray],
    files: list[SourceFile],
    columns: Mapping[str, pa.DataType],
) -> Path:
    """Write every row that is not used: file, row number, reason, raw values. Returns the file's path.

    `verdicts` has one array per block, with a verdict for each usable row. Rows that the steps `sample` and `balance`
    leave out are not listed. Writes no file if all rows are used.
    """
    path = folder / QUARANTINE
    schema = pa.schema([("path", pa.string()), ("row", pa.int64()), ("reason", pa.string()), *columns.items()])
    writer: pq.ParquetWriter | None = None
    for block, block_verdicts in zip(stats, verdicts, strict=True):
        source = files[block.source].path
        tables = [_with_path(table, source) for table in _unused_rows(folder, block, block_verdicts)]
        if tables:
            rows = pa.concat_tables(tables, promote_options="default")
            writer = writer or pq.ParquetWriter(path, schema)
            writer.write_table(rows.sort_by("row").select(schema.names).cast(schema))
    if writer:
        writer.close()
    return path


def _unused_rows(folder: Path, stats: BlockStats, verdicts: np.ndarray) -> Iterator[pa.Table]:
    """Yield the unused rows of one block: first those that failed a check of single rows, then those with a verdict."""
    if stats.rows > stats.good:
        yield read_ipc(folder / BAD / f"{stats.name}.arrow")
    listed = np.flatnonzero((verdicts > 0) & (verdicts < SAMPLED))
    if len(listed):
        shard = read_ipc(folder / SHARDS / f"{stats.name}.arrow").take(pa.array(listed))
        reasons = pa.array([REASONS[verdict] for verdict in verdicts[listed]], pa.string())
        raw_columns = [name for name in shard.column_names if name != INPUTS]
        yield shard.select(raw_columns).append_column("reason", reasons)


def _with_path(table: pa.Table, path: str) -> pa.Table:
    if "path" in table.column_names:
        return table
    return table.append_column("path", pa.array([printable(path)] * len(table), pa.string()))


def copy_quarantine(quarantine: Path, quarantine_to: Path) -> None:
    """Copy the quarantine file, if there is one, to the path that the run names."""
    if quarantine.is_file():
        quarantine_to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(quarantine, quarantine_to)


def check_bad_rows(summary: dict[str, Any], max_bad_fraction: float, quarantine: Path, quarantine_to: Path) -> None:
    """Copy the quarantine to the run's folder and raise `TooManyBadRows` if more rows are bad than allowed."""
    copy_quarantine(quarantine, quarantine_to)
    n_bad, n_rows = sum(summary["quarantined"].values()), summary["rows_in_all"]
    if n_bad <= max_bad_fraction * n_rows:
        return
    counts = ", ".join(f"{reason}: {count}" for reason, count in summary["quarantined"].items())
    first = _first_bad_row(quarantine, set(summary.get("left_out", ())))
    raise TooManyBadRows(
        f"{n_bad} of {n_rows} rows cannot be used ({counts}), more than data.max_bad_fraction={max_bad_fraction:g} "
        f"allows; the first is row {first['row']} of {first['path']}{_evidence(first)}",
        _suggest_repair(summary["quarantined"], n_rows, quarantine_to),
        summary["quarantined"],
    )


def _suggest_repair(by_reason: dict[str, int], n_rows: int, quarantine: Path) -> str:
    reason, count = next(iter(by_reason.items()))
    if reason.startswith("invalid "):
        return (
            "save the files as UTF-8, or set `data.format: {encoding: cp1252}`, or whatever encoding they have; the rows "
            f"are listed in {quarantine}"
        )
    if reason == "wrong number of cells" and count <= n_rows / 2:
        return (
            f"put cells that hold the separator into quotes in the rows listed in {quarantine}, say how the file is read "
            "with `data.format: {separator: ..., quote: ..., escape: ...}`, or raise `data.max_bad_fraction`"
        )
    if reason.startswith("over ") and reason.endswith(" tokens"):
        return (
            "raise `data.max_length`, as far as the base model allows, or say what becomes of long rows with "
            f"`data.chat.overlong`; the rows are listed in {quarantine}"
        )
    if count > n_rows / 2:  # the spec is probably wrong, not the rows
        return (
            f"most rows have the same problem ({reason}): check `data.format`, `data.columns`, `data.labels`, "
            f"`data.features` and `data.steps`; the rows are listed in {quarantine}"
        )
    allowable = [name for name in by_reason if name in ALLOWABLE_ISSUES]
    allow = f", or set `data.allow_issues: [{', '.join(allowable)}]`" if allowable else ""
    return f"repair the rows listed in {quarantine}, or raise `data.max_bad_fraction`{allow}"


def _first_bad_row(quarantine: Path, left_out: set[str]) -> dict[str, Any]:
    """Return the first listed row that is bad; rows with a reason in `left_out` were left out by a step."""
    with pq.ParquetFile(quarantine) as file:
        columns = [field.name for field in file.schema_arrow if field.type == pa.string()]
        for batch in file.iter_batches(columns=["row", *columns]):
            for row in batch.to_pylist():
                if row["reason"] not in left_out:
                    return dict(row)
    raise AssertionError("bad rows were counted that the quarantine does not list")


def _evidence(row: dict[str, Any]) -> str:
    """Return the bytes or the cells of a bad row that show its reason; empty if the reason says it all."""
    if row["reason"] in _TORN:
        cells = [value for name, value in row.items() if value and name not in ("path", "row", "reason")]
        return f": {cells[0][:_SHOWN_CHARS]!r}" if cells else ""
    return explain_reason(row["reason"], row["path"])


def check_no_empty_part(summary: dict[str, Any], split: SplitSpec, task: Task) -> None:
    """Raise `DataError` if a part has no rows."""
    rows = summary["rows"]
    for part in PARTS:
        if not rows[part]:
            raise DataError(
                f"no row is left for {part}: there are {sum(rows.values())} usable rows in all",
                _suggest_more_rows(part, split, task),
            )


def _suggest_more_rows(part: str, split: SplitSpec, task: Task) -> str:
    if part == "train":
        return "add rows, or check `data.steps` and `data.split`"
    if split.by == "time":
        return f"set `data.split.validation_from` and `test_from` to times that some rows reach, or set `data.{part}`"
    stratify = " set `data.split.stratify`," if task.target.has_classes else ""
    return f"add rows, raise `data.split.{part}`,{stratify} or set `data.{part}`"
