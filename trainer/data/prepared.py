"""Prepared rows on storage: memory-mapped Arrow shards and an index that says which row is where.

    prepared/<fingerprint>-<key>/
      contract.json  tokenizer.json ...   how the rows were made
      shards/00000-00000.arrow            source file, row number, raw values, model inputs; in the order of the files
      index.arrow                         part, shard, offset, target id, length; one line for each usable row
      quarantine.parquet                  rows that could not be used, with the reason (only if there are any)
      prepare.json                        counts

Shards hold every usable row once, whatever its part, so that a split costs no second pass over the texts.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from cluster.files import read_json, sha256_of
from trainer import contract as contracts
from trainer.contract import Contract
from trainer.data.split import PARTS

INDEX = "index.arrow"
SUMMARY = "prepare.json"
SHARDS = "shards"
QUARANTINE = "quarantine.parquet"


class Rows:
    """The rows of one part (train, validation or test), in the order of the source files."""

    def __init__(self, shards: list[pa.Table], index: pa.Table) -> None:
        self._shards = shards
        self._shard_B = index["shard"].to_numpy()
        self._offset_B = index["offset"].to_numpy()
        self.target_ids = index["target_id"].to_numpy()
        """int32 ids of what is to be predicted, shape (rows,)."""
        self.lengths = index["length"].to_numpy()
        """int32 lengths in tokens, shape (rows,)."""

    def __len__(self) -> int:
        return len(self._shard_B)

    @cached_property
    def _inputs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(offsets, values) of each shard's inputs; views of the mapped file, nothing is copied."""
        columns = [shard["input_ids"].combine_chunks() for shard in self._shards]
        return [(column.offsets.to_numpy(), column.values.to_numpy()) for column in columns]

    def input_ids(self, row: int) -> np.ndarray:
        """Return the int32 token ids of one row."""
        offsets, values = self._inputs[self._shard_B[row]]
        place = self._offset_B[row]
        return values[offsets[place] : offsets[place + 1]]

    def raw(self, role: str) -> list[str]:
        """Return the raw values of one role for all rows."""
        starts = np.cumsum([0, *[len(shard) for shard in self._shards]])
        if not self._shards:
            return []
        everything = pa.chunked_array([chunk for shard in self._shards for chunk in shard[role].chunks])
        found: list[str] = everything.take(pa.array(starts[self._shard_B] + self._offset_B)).to_pylist()
        return found

    def digest(self, roles: list[str]) -> str:
        """Return a hex digest of the rows' content, in which their order does not matter."""
        return sha256_of(sorted(zip(*[self.raw(role) for role in roles], strict=True)))


class Prepared:
    """One prepared folder, opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contract: Contract = contracts.load(folder)
        self.summary: dict[str, object] = read_json(folder / SUMMARY)
        self._parts: dict[str, Rows] = {}

    def part(self, name: str) -> Rows:
        """Return the rows of "train", "validation" or "test"."""
        if name not in self._parts:
            index = _map(self.folder / INDEX)
            chosen = index.filter(pa.compute.equal(index["part"], PARTS.index(name)))
            self._parts[name] = Rows(self._shards, chosen)
        return self._parts[name]

    @cached_property
    def _shards(self) -> list[pa.Table]:
        return [_map(path) for path in sorted((self.folder / SHARDS).glob("*.arrow"))]


def _map(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is damaged: {error}", f"remove {path.parents[1]} and run again: it is made anew") from error
