"""Prepared rows on storage: memory-mapped Arrow shards and an index that says which row is where.

    prepared/<fingerprint>-<key>/
      contract.json  tokenizer.json ...   how the rows were made
      shards/00000-00000.arrow            source file, row number, raw values, model inputs; in the order of the files
      index.arrow                         part, shard, offset, target, length; one line for each usable row
      quarantine.parquet                  rows that are not used, with the reason (only if there are any)
      columns.json                        what the columns of `data.features` are like (only if there are any)
      prepare.json                        counts

Shards hold every usable row once, whatever its part, so that a split costs no second pass over the texts; where training
rows are streamed they hold the held-out rows only.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.files import read_json
from trainer.contract import contract as contracts
from trainer.contract.contract import Contract
from trainer.data.folder import FEATURE_PROFILE, INDEX, INPUTS, SHARDS, SUMMARY
from trainer.data.parts import PARTS
from trainer.tasks import catalog as task_catalog


class PreparedRows:
    """The rows of one part (train, validation or test), in the order of the source files."""

    def __init__(self, shards: list[pa.Table], index: pa.Table, contract: Contract) -> None:
        self._shards, self._index, self._contract = shards, index, contract
        self._shard_B = index["shard"].to_numpy()
        self._offset_B = index["offset"].to_numpy()
        self.lengths = index["length"].to_numpy()
        """int32 lengths of the inputs (of texts: in tokens), shape (rows,); 0 where all are equally long."""

    @cached_property
    def targets(self) -> np.ndarray:
        """What is to be predicted, as the target's `array` returns it: of classes int32 ids, shape (rows,)."""
        return task_catalog.task_of_contract(self._contract).target.array(self._contract.fitted, self._index["target"])

    def __len__(self) -> int:
        return len(self._shard_B)

    @cached_property
    def _inputs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(offsets, values) of each shard's inputs; views of the mapped file, nothing is copied."""
        columns = [shard[INPUTS].combine_chunks() for shard in self._shards]
        return [(column.offsets.to_numpy(), column.values.to_numpy()) for column in columns]

    def inputs(self, row: int) -> np.ndarray:
        """Return the model input of one row, 1-D: of texts int32 token ids."""
        offsets, values = self._inputs[self._shard_B[row]]
        place = self._offset_B[row]
        return values[offsets[place] : offsets[place + 1]]

    def matrix(self) -> np.ndarray:
        """Return all inputs as one array, shape (rows, width); for tasks whose inputs are equally long."""
        found = [self.inputs(row) for row in range(len(self))]
        return np.stack(found) if found else np.empty((0, 0), np.float32)

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

    def without_repeats(self) -> PreparedRows:
        """Return the same rows without the copies that `balance: {how: oversample}` made."""
        places = self._shard_B.astype(np.int64) << 32 | self._offset_B
        _, first = np.unique(places, return_index=True)
        return self if len(first) == len(self) else self.take(np.sort(first))

    def take(self, rows: np.ndarray) -> PreparedRows:
        """Return the rows at these places."""
        return PreparedRows(self._shards, self._index.take(pa.array(rows)), self._contract)

    def origin(self, row: int) -> tuple[int, int]:
        """Return the shard of one row, and its number in the source file that the shard is made of."""
        shard = int(self._shard_B[row])
        return shard, int(self._shards[shard]["row"][int(self._offset_B[row])].as_py())

    def raw(self, role: str, first: int | None = None) -> list[Any]:
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


class Prepared:
    """One prepared folder, opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contract: Contract = contracts.load_contract(folder)
        self.summary: dict[str, Any] = read_json(folder / SUMMARY)
        self._parts: dict[str, PreparedRows] = {}

    def part(self, name: str) -> PreparedRows:
        """Return the rows of "train", "validation" or "test"."""
        if name not in self._parts:
            index = _map(self.folder / INDEX)
            chosen = index.filter(pc.equal(index["part"], PARTS.index(name)))
            self._parts[name] = PreparedRows(self._shards, chosen, self.contract)
        return self._parts[name]

    def source(self, part: str, row: int) -> str:
        """Return where one row of a part comes from, as `train.csv, row 12`."""
        shard, number = self.part(part).origin(row)
        files: list[str] = self.summary.get("files", [])  # prepared folders of earlier releases name none
        place = int(sorted(self.summary["shards"])[shard].partition("-")[0])
        return f"{files[place]}, row {number}" if place < len(files) else f"row {number}"

    @property
    def feature_profile(self) -> dict[str, Any]:
        """The profile of the columns of `data.features`, as `trainer.features.profile` writes it; empty without any."""
        path = self.folder / FEATURE_PROFILE
        found: dict[str, Any] = read_json(path) if path.is_file() else {}
        return found

    @cached_property
    def _shards(self) -> list[pa.Table]:
        expected: dict[str, int] = self.summary["shards"]
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
