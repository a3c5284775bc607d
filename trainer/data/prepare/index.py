"""What is written once all rows are judged: the index, the quarantine file and the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.contract import row_hash
from trainer.data.arrow import read_ipc
from trainer.data.folder import BAD, INPUTS, SHARDS
from trainer.data.parts import PARTS, TRAIN
from trainer.data.prepare.block_maker import BlockNote
from trainer.data.prepare.facts import Block
from trainer.data.prepare.judge import RowJudge
from trainer.data.prepare.verdicts import BALANCED, DUPLICATE, NEAR, REASONS, SAMPLED
from trainer.data.sources.resolve import SourceFile
from trainer.spec.data import Data
from trainer.steps.cleaner import of_whole


def _schema(judge: RowJudge) -> pa.Schema:
    target = judge.facts.task.target.encode(judge.facts.contract.fitted, pa.array([], pa.string())).type
    return pa.schema(
        [
            ("part", pa.int8()),
            ("shard", pa.int32()),
            ("offset", pa.int32()),
            ("target", target),
            ("length", pa.int32()),
        ]
    )


def write_index(judge: RowJudge, path: Path) -> int:
    """Write one line for each row that is used (more for a row that is repeated), in the order of the files.

    Returns how many lines are repetitions.
    """
    repeats = judge.repeats()
    repeated = 0
    schema = _schema(judge)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for shard, block in enumerate(judge.facts.blocks()):
            rows = np.flatnonzero(judge.verdicts[block.rows] == 0)
            parts = judge.parts[block.rows]
            if repeats is not None:
                once = len(rows)
                rows = np.repeat(rows, _times(block, rows, parts, repeats, judge.data))
                repeated += len(rows) - once
            targets = block.targets.take(pa.array(rows))
            columns = (parts[rows], np.full(len(rows), shard), rows, targets, block.lengths[rows])
            arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return repeated


def _times(block: Block, rows: np.ndarray, parts: np.ndarray, repeats: np.ndarray, data: Data) -> np.ndarray:
    """Return how often each row is used: 2.3 means twice, and a third time for three rows in ten, by their content."""
    wanted = np.where(parts[rows] == TRAIN, repeats[block.groups[rows]], 1.0)
    whole, part = np.floor(wanted), wanted % 1.0
    extra = row_hash.position(block.keys[rows], data.split.seed, "oversample") < part
    times: np.ndarray = (whole + extra).astype(np.int64)
    return times


def write_quarantine(
    folder: Path,
    notes: list[BlockNote],
    verdicts: list[np.ndarray],
    files: list[SourceFile],
    roles: Mapping[str, pa.DataType],
    path: Path,
) -> None:
    """Write every row that is not used, but for those left out by a sample: file, row number, reason, raw values.

    `verdicts` has an array for each block, of its usable rows. Writes nothing where all rows are used.
    """
    schema = pa.schema([("path", pa.string()), ("row", pa.int64()), ("reason", pa.string()), *roles.items()])
    writer: pq.ParquetWriter | None = None
    for note, judged in zip(notes, verdicts, strict=True):
        tables = list(_unused(folder, note, judged))
        if tables:
            rows = pa.concat_tables([_with_path(t, files[note.source].path) for t in tables], promote_options="default")
            writer = writer or pq.ParquetWriter(path, schema)
            writer.write_table(rows.sort_by("row").select(schema.names).cast(schema))
    if writer:
        writer.close()


def _unused(folder: Path, note: BlockNote, verdicts: np.ndarray) -> Iterator[pa.Table]:
    """Yield the rows of one block that no check passed, and those that were judged with all others."""
    if note.rows > note.good:
        yield read_ipc(folder / BAD / f"{note.name}.arrow")
    listed = np.flatnonzero((verdicts > 0) & (verdicts < SAMPLED))
    if len(listed):
        shard = read_ipc(folder / SHARDS / f"{note.name}.arrow").take(pa.array(listed))
        reasons = pa.array([REASONS[code] for code in verdicts[listed]], pa.string())
        shown = [name for name in shard.column_names if name != INPUTS]
        yield shard.select(shown).append_column("reason", reasons)


def _with_path(table: pa.Table, path: str) -> pa.Table:
    return (
        table
        if "path" in table.column_names
        else table.append_column("path", pa.array([path] * len(table), pa.string()))
    )


def summary(judge: RowJudge, repeated: int) -> dict[str, Any]:
    """Return the counts of a preparation: rows by part and class, bad rows and rows left out by reason."""
    notes = judge.facts.notes
    bad = by_reason(notes)
    by_verdict = np.bincount(judge.verdicts, minlength=len(REASONS))
    found = {REASONS[code]: int(count) for code, count in enumerate(by_verdict) if code and count}
    chosen = {REASONS[code] for code in _chosen(judge.data)}
    bad.update({name: count for name, count in found.items() if name not in chosen})
    counts_CP = rows_by_class(judge)
    rows = {part: int(counts_CP[:, at].sum()) for at, part in enumerate(PARTS)}
    if judge.data.mode == "streaming":
        found[REASONS[SAMPLED]] = sum(note.good - sum(note.held.values()) for note in notes)
    by_class = {name: counts_CP[at].tolist() for at, name in enumerate(judge.facts.groups)}
    return {
        "rows": rows,
        "rows_in_all": sum(note.rows for note in notes),
        "quarantined": _sorted(bad),
        "left_out": {name: count for name, count in found.items() if name in chosen and count},
        "rows_by_class": by_class if judge.facts.task.target.has_classes else {},
        "class_weights": _weights(counts_CP[:, TRAIN], judge.data),
        "repeated": repeated,
        "mode": judge.data.mode,
    }


def by_reason(notes: list[BlockNote]) -> dict[str, int]:
    """Return the rows that no check of single rows passed, by reason, most first."""
    bad: Counter[str] = Counter()
    for note in notes:
        bad.update(note.reasons)
    return _sorted(bad)


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _chosen(data: Data) -> set[int]:
    """Verdicts that a step of the spec asked for: such rows are left out, not bad."""
    asked = {SAMPLED, BALANCED}
    return asked | ({DUPLICATE, NEAR} if any(step.deduplicate for step in of_whole(data)) else set())


def rows_by_class(judge: RowJudge) -> np.ndarray:
    """Return the rows that are used, by class and part, int64, shape (classes, 3); streamed ones as they were counted."""
    counts_CP = judge.counts()
    if judge.data.mode == "streaming":
        counts_CP[:, TRAIN] = _streamed(judge.facts.notes, judge.facts.groups)
    return counts_CP


def _streamed(notes: list[BlockNote], groups: list[str]) -> np.ndarray:
    counts: Counter[str] = Counter()
    for note in notes:
        counts.update(note.streamed)
    return np.array([counts[group] for group in groups], np.int64)


def _weights(train_C: np.ndarray, data: Data) -> list[float] | None:
    """Return a weight for each class, 1 on average over the rows, where the spec weighs classes."""
    if not any(step.balance and step.balance.how == "weight" for step in of_whole(data)):
        return None
    return [round(float(train_C.sum() / (len(train_C) * max(1, count))), 6) for count in train_C]
