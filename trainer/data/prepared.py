"""Prepared rows on storage: memory-mapped Arrow shards, and an index that says which row is where.

    prepared/<fingerprint>-<key>/
      contract.json  tokenizer.json ...   the contract that encoded the rows
      shards/0000000-0000000.arrow        row number, raw values, model inputs of each usable row; the name holds the
                                          numbers of the source file and of the block in it
      index.arrow                         part, shard, offset, target, length; one line for each use of a usable row
                                          (oversampling uses a row several times)
      quarantine.parquet                  rows that are not used, with their reasons (only if there are any)
      columns.json                        profile of the columns of `data.features` (only if the spec names any)
      prepare.json                        counts

Shards hold every usable row once, whatever its part, so that a split needs no second pass over the texts. If training
is streamed, they hold the held-out rows only.
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
from trainer.contract.contract import Contract, load_contract
from trainer.data.folder import FEATURE_PROFILE, INDEX, INPUTS, SHARDS, SUMMARY
from trainer.data.parts import PARTS
from trainer.tasks.catalog import task_of_contract


class PreparedRows:
    """The rows of one part (train, validation or test), in the order of the source files."""

    def __init__(self, shards: list[pa.Table], index: pa.Table, contract: Contract) -> None:
        self._shards, self._index, self._contract = shards, index, contract
        self._shard_B = index["shard"].to_numpy()
        self._offset_B = index["offset"].to_numpy()
        self.lengths = index["length"].to_numpy()
        """int32 lengths of the inputs (texts: in tokens), shape (rows,); 0 for a task with fixed-length inputs."""

    @cached_property
    def targets(self) -> np.ndarray:
        """The targets, as returned by `array` of the task's target; for classes, int32 ids of shape (rows,)."""
        task = task_of_contract(self._contract)
        return task.target.array(self._contract.fitted, self._index["target"])

    def __len__(self) -> int:
        return len(self._shard_B)

    @cached_property
    def _inputs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(offsets, values) of each shard's inputs: views of the mapped file, without a copy."""
        columns = [shard[INPUTS].combine_chunks() for shard in self._shards]
        return [(column.offsets.to_numpy(), column.values.to_numpy()) for column in columns]

    def inputs(self, row: int) -> np.ndarray:
        """Return the model input of one row, 1-D; for texts, int32 token ids."""
        offsets, values = self._inputs[self._shard_B[row]]
        offset = self._offset_B[row]
        return values[offsets[offset] : offsets[offset + 1]]

    def matrix(self) -> np.ndarray:
        """Return all inputs as one array, shape (rows, width). The inputs must have the same length."""
        inputs = [self.inputs(row) for row in range(len(self))]
        return np.stack(inputs) if inputs else np.empty((0, 0), np.float32)

    def tokens(self) -> np.ndarray:
        """Return the distinct int32 token ids of these rows, sorted."""
        per_shard: list[np.ndarray] = []
        for shard, (offsets, values) in enumerate(self._inputs):
            rows = self._offset_B[self._shard_B == shard]
            # Add 1 where a row starts and subtract 1 where it ends: values inside a row have a positive running sum.
            steps = np.zeros(len(values) + 1, dtype=np.int32)
            np.add.at(steps, offsets[rows], 1)
            np.add.at(steps, offsets[rows + 1], -1)
            per_shard.append(np.unique(values[np.cumsum(steps[:-1]) > 0]))
        return np.unique(np.concatenate(per_shard)) if per_shard else np.empty(0, np.int32)

    def without_repeats(self) -> PreparedRows:
        """Return the same rows without the copies that `balance: {method: oversample}` added."""
        shard_and_offset = self._shard_B.astype(np.int64) << 32 | self._offset_B
        _, first = np.unique(shard_and_offset, return_index=True)
        return self if len(first) == len(self) else self.take(np.sort(first))

    def take(self, rows: np.ndarray) -> PreparedRows:
        """Return the rows with these indices."""
        return PreparedRows(self._shards, self._index.take(pa.array(rows)), self._contract)

    def location(self, row: int) -> tuple[int, int]:
        """Return the shard of one row, and its index in the shard."""
        return int(self._shard_B[row]), int(self._offset_B[row])

    def raw(self, role: str, first: int | None = None) -> list[Any]:
        """Return the raw values of one role for all rows; if `first` is a number, only for that many rows."""
        shard_B, offset_B = self._shard_B[:first], self._offset_B[:first]
        values = np.empty(len(shard_B), dtype=object)
        # Shard by shard: Arrow cannot concatenate columns of over 2 GB of text.
        for shard in np.unique(shard_B):
            rows = np.flatnonzero(shard_B == shard)
            values[rows] = self._shards[shard][role].take(pa.array(offset_B[rows])).to_pylist()
        return list(values)

    def char_lengths(self, role: str) -> np.ndarray:
        """Return the int64 lengths in characters of one role's raw values, shape (rows,)."""
        lengths = np.zeros(len(self), np.int64)
        for shard in np.unique(self._shard_B):
            rows = np.flatnonzero(self._shard_B == shard)
            shard_lengths = pc.utf8_length(self._shards[shard][role]).to_numpy()
            lengths[rows] = shard_lengths[self._offset_B[rows]]
        return lengths


class Prepared:
    """An open prepared folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contract: Contract = load_contract(folder)
        self.summary: dict[str, Any] = read_json(folder / SUMMARY)
        self._parts: dict[str, PreparedRows] = {}

    def part(self, name: str) -> PreparedRows:
        """Return the rows of "train", "validation" or "test"."""
        if name not in self._parts:
            index = _memory_map(self.folder / INDEX)
            part_index = index.filter(pc.equal(index["part"], PARTS.index(name)))
            self._parts[name] = PreparedRows(self._shards, part_index, self.contract)
        return self._parts[name]

    def source(self, part: str, row: int) -> str:
        """Return where one row of a part comes from, for example `train.csv, row 12`."""
        shard, offset = self.part(part).location(row)
        number = self._shards[shard]["row"][offset].as_py()
        if "path" in self._shards[shard].column_names:  # each row is a file, or the shard has the rows of small files
            return f"{self._shards[shard]['path'][offset].as_py()}, row {number}"
        files: list[str] = self.summary.get("files", [])  # prepared folders of earlier releases list no files
        file = int(sorted(self.summary["shards"])[shard].partition("-")[0])
        return f"{files[file]}, row {number}" if file < len(files) else f"row {number}"

    def files_of(self, part: str) -> tuple[list[str], np.ndarray]:
        """Return the files of the rows of a part, and the index of each row's file in this list, int64, shape (rows,)."""
        rows = self.part(part)
        names = list(self.summary.get("files", []))
        index = {name: number for number, name in enumerate(names)}
        row_files = np.zeros(len(rows), np.int64)
        locations = np.array([rows.location(row) for row in range(len(rows))], np.int64).reshape(-1, 2)
        for number, shard in enumerate(sorted(self.summary["shards"])):
            in_shard = locations[:, 0] == number
            table = self._shards[number]
            if "path" not in table.column_names:
                row_files[in_shard] = int(shard.partition("-")[0])
                continue
            for path in table["path"].unique().to_pylist():
                index.setdefault(path, len(index))
            codes = np.array([index[path] for path in table["path"].to_pylist()], np.int64)
            row_files[in_shard] = codes[locations[in_shard, 1]]
        return list(index), row_files

    @property
    def feature_profile(self) -> dict[str, Any]:
        """The profile of the columns of `data.features`, as `trainer.features.profile` writes it; {} if none."""
        path = self.folder / FEATURE_PROFILE
        profile: dict[str, Any] = read_json(path) if path.is_file() else {}
        return profile

    @cached_property
    def _shards(self) -> list[pa.Table]:
        expected: dict[str, int] = self.summary["shards"]
        shards = [_memory_map(self.folder / SHARDS / name) for name in sorted(expected)]
        for (name, n_rows), shard in zip(sorted(expected.items()), shards, strict=True):
            if len(shard) != n_rows:
                raise _damaged_error(self.folder / SHARDS / name, f"{len(shard)} rows instead of {n_rows}")
        return shards


def _memory_map(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged_error(path, str(error)) from error


def _damaged_error(path: Path, problem: str) -> DataError:
    folder = path.parent.parent if path.parent.name == SHARDS else path.parent
    return DataError(f"{path} is damaged: {problem}", f"remove {folder} and run again; the rows are prepared again")
