"""Prepared rows on storage: memory-mapped Arrow shards and an index that says which row is where.

    prepared/<fingerprint>-<key>/
      contract.json  tokenizer.json ...   how the rows were made
      shards/00000-00000.arrow            source file, row number, raw values, model inputs; in the order of the files
      index.arrow                         part, shard, offset, target id, length; one line for each usable row
      quarantine.parquet                  rows that are not used, with the reason (only if there are any)
      columns.json                        what the columns of `data.features` are like (only if there are any)
      prepare.json                        counts

Shards hold every usable row once, whatever its part, so that a split costs no second pass over the texts; where training
rows are streamed they hold the held-out rows only.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.files import read_json, sha256_of
from trainer import contract as contracts
from trainer.contract import Contract
from trainer.data.split import PARTS

INDEX = "index.arrow"
SUMMARY = "prepare.json"
SHARDS = "shards"
QUARANTINE = "quarantine.parquet"
COLUMNS = "columns.json"


class Rows:
    """The rows of one part (train, validation or test), in the order of the source files."""

    def __init__(self, shards: list[pa.Table], index: pa.Table) -> None:
        self._shards, self._index = shards, index
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

    def tokens(self) -> np.ndarray:
        """Return the int32 ids of all tokens in these rows, each once."""
        seen: list[np.ndarray] = []
        for shard, (offsets, values) in enumerate(self._inputs):
            at = self._offset_B[self._shard_B == shard]
            used = np.zeros(len(values) + 1, dtype=np.int32)
            np.add.at(used, offsets[at], 1)
            np.add.at(used, offsets[at + 1], -1)
            seen.append(np.unique(values[np.cumsum(used[:-1]) > 0]))
        return np.unique(np.concatenate(seen)) if seen else np.empty(0, np.int32)

    def once(self) -> Rows:
        """Return the same rows without the copies that `balance: {how: oversample}` made."""
        places = self._shard_B.astype(np.int64) << 32 | self._offset_B
        _, first = np.unique(places, return_index=True)
        return self if len(first) == len(self) else Rows(self._shards, self._index.take(pa.array(np.sort(first))))

    def raw(self, role: str, first: int | None = None) -> list[str]:
        """Return the raw values of one role for all rows, or for the `first` ones."""
        shard_B, offset_B = self._shard_B[:first], self._offset_B[:first]
        found = np.empty(len(shard_B), dtype=object)
        # Shard by shard: Arrow cannot join columns of over 2 GB of text.
        for shard in np.unique(shard_B):
            here = np.flatnonzero(shard_B == shard)
            found[here] = self._shards[shard][role].take(pa.array(offset_B[here])).to_pylist()
        return list(found)

    def char_lengths(self, role: str) -> np.ndarray:
        """Return the int64 lengths in characters of one role's raw values, shape (rows,)."""
        found = np.zeros(len(self), np.int64)
        for shard in np.unique(self._shard_B):
            here = np.flatnonzero(self._shard_B == shard)
            lengths = pc.utf8_length(self._shards[shard][role]).to_numpy()
            found[here] = lengths[self._offset_B[here]]
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
            chosen = index.filter(pc.equal(index["part"], PARTS.index(name)))
            self._parts[name] = Rows(self._shards, chosen)
        return self._parts[name]

    @property
    def columns(self) -> dict[str, object]:
        """The profile of the columns of `data.features`, as `trainer.features.profile` writes it; empty without any."""
        path = self.folder / COLUMNS
        found: dict[str, object] = read_json(path) if path.is_file() else {}
        return found

    @cached_property
    def _shards(self) -> list[pa.Table]:
        expected: dict[str, int] = self.summary["shards"]  # type: ignore[assignment]
        shards = [_map(self.folder / SHARDS / name) for name in sorted(expected)]
        for (name, n_rows), shard in zip(sorted(expected.items()), shards, strict=True):
            if len(shard) != n_rows:
                raise _damaged(self.folder / SHARDS / name, f"{len(shard)} rows instead of {n_rows}")
        return shards


def _map(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, how: str) -> DataError:
    folder = path.parent.parent if path.parent.name == SHARDS else path.parent
    return DataError(f"{path} is damaged: {how}", f"remove {folder} and run again: it is made anew")
