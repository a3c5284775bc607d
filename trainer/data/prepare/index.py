"""Write the index of a prepared folder: one line for each use of a row, with its part, shard and target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from trainer.contract.row_hash import hash_position
from trainer.data.parts import TRAIN
from trainer.data.prepare.facts import Block
from trainer.data.prepare.judge import RowJudge
from trainer.spec.data import DataSpec


def write_index(judge: RowJudge, path: Path) -> int:
    """Write one line for each row that is used (more for a row that is repeated), in the order of the files.

    Returns how many lines are repetitions.
    """
    repeats = judge.repeats()
    n_repeated = 0
    schema = _index_schema(judge)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for shard, block in enumerate(judge.facts.blocks()):
            rows = np.flatnonzero(judge.verdicts[block.rows] == 0)
            parts = judge.parts[block.rows]
            if repeats is not None:
                n_once = len(rows)
                rows = np.repeat(rows, _uses(block, rows, parts, repeats, judge.data))
                n_repeated += len(rows) - n_once
            targets = block.targets.take(pa.array(rows))
            columns = (parts[rows], np.full(len(rows), shard), rows, targets, block.lengths[rows])
            arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return n_repeated


def _index_schema(judge: RowJudge) -> pa.Schema:
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


def _uses(block: Block, rows: np.ndarray, parts: np.ndarray, repeats: np.ndarray, data: DataSpec) -> np.ndarray:
    """Return how often each row is used. `repeats` may hold fractions, for example 2.3.

    Then every row is used twice, and three rows in ten are used a third time; a hash of the content selects them.
    """
    uses = np.where(parts[rows] == TRAIN, repeats[block.groups[rows]], 1.0)
    extra = hash_position(block.keys[rows], data.split.seed, "oversample") < uses % 1.0
    times: np.ndarray = (np.floor(uses) + extra).astype(np.int64)
    return times
