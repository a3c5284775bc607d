"""Turn a block of raw rows into files: a shard of model inputs, the facts about its rows, and its bad rows.

The files depend on the block alone: this process and a Ray Data worker write the same bytes, and a task that Ray
repeats writes the same files again. The driver gets one `BlockStats` per block, whose size does not grow with the rows.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from trainer.contract.contract import Contract
from trainer.contract.row_hash import hash_contents, hash_position
from trainer.data.arrow import write_ipc
from trainer.data.folder import BAD, FACTS, INPUTS, SHARDS
from trainer.data.parts import PARTS, TRAIN
from trainer.data.prepare.minhash import band_hashes
from trainer.data.prepare.row_checks import RowLimits, add_reason, check_rows, reject_rows
from trainer.data.prepare.row_identity import VALUES_KEY, identify_rows
from trainer.data.prepare.split import split_training_rows
from trainer.spec.data import DataSpec
from trainer.steps.cleaner import Cleaner, dataset_steps
from trainer.tasks.base import Task
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.roles import FEATURE, GROUP, TIME, features_of, target_values
from trainer.values.columns import canonical_words, one_array
from trainer.values.moment_columns import parse_moments

#: Prefix of the hash purpose (see `hash_position`) of the step `sample`; the split has another purpose.
SAMPLE = "sample"
#: The part of a row that streaming leaves out.
LEFT_OUT = -1


class BlockStats(BaseModel):
    """Names and counts of one block, as the driver keeps them."""

    source: int
    """Number of the block's file among all files of the run."""
    number: int
    """Index of the block in its file."""
    name: str
    """File name, without the extension, of the block's shard, facts and bad rows."""
    rows: int
    good: int
    """Usable rows."""
    reasons: dict[str, int]
    """Bad rows by reason."""
    targets: dict[str, int]
    """Counts of the usable rows' targets, as the target's `tally` returns them."""
    rows_by_part: dict[str, int] = {}
    """Streaming only: usable rows by part, because not all of them are written."""
    train_rows_by_class: dict[str, int] = {}
    """Streaming only: training rows by class; under the name "" if the target has no classes."""


class EncodedBlock(NamedTuple):
    """A block after checking, cleaning and encoding. `good`, `inputs` and `facts` have one row per usable row."""

    good: pa.Table
    inputs: pa.ListArray | None
    """Model inputs; None for a task that encodes rows later, after fitting on the training rows."""
    facts: pa.Table
    bad: pa.Table


class BlockMaker:
    """Writes the blocks of one prepared folder. Ray pickles it; each process loads its own tokenizer and steps.

    `parts` holds the part of each source file, by the file's number.
    """

    def __init__(self, data: DataSpec, contract: Contract, folder: Path, parts: list[str]) -> None:
        self.data, self.contract, self.folder, self.parts = data, contract, folder, parts

    def __call__(self, rows: pa.Table, source: int, number: int) -> BlockStats:
        """Write the files of block `number` of source file `source` and return its counts."""
        block = self.encode(rows)
        stats = BlockStats(
            source=source,
            number=number,
            name=f"{source:07d}-{number:07d}",  # the index relies on names that sort in the order of the files
            rows=len(block.good) + len(block.bad),  # parts of long rows are rows
            good=len(block.good),
            reasons=dict(Counter(_reason_kind(reason) for reason in block.bad["reason"].to_pylist())),
            targets=self.task.target.tally(target_values(self.task, block.good)),
        )
        if self.data.mode == "streaming":
            parts = self.row_parts(block.facts, source)
            stats = stats.model_copy(update=self._streamed_counts(block.good, parts))
            self._write(block, stats.name, keep=pa.array(parts > TRAIN))
        else:
            self._write(block, stats.name)
        return stats

    def _streamed_counts(self, good: pa.Table, parts: np.ndarray) -> dict[str, dict[str, int]]:
        """Return the fields of `BlockStats` that only streaming fills."""
        target = self.task.target
        train_targets = target_values(self.task, good).filter(pa.array(parts == TRAIN))
        return {
            "rows_by_part": {name: int((parts == part).sum()) for part, name in enumerate(PARTS)},
            "train_rows_by_class": target.tally(train_targets) if target.has_classes else {"": len(train_targets)},
        }

    def _write(self, block: EncodedBlock, name: str, keep: pa.Array | None = None) -> None:
        """Write the block's files; `keep` selects the usable rows to write, all by default."""
        shard, facts = self._raw_columns(block.good, "row"), block.facts
        if block.inputs is not None:
            shard = shard.append_column(INPUTS, block.inputs)
        if keep is not None:
            shard, facts = shard.filter(keep), facts.filter(keep)
        write_ipc(shard, self.folder / SHARDS / f"{name}.arrow")
        write_ipc(facts, self.folder / FACTS / f"{name}.arrow")
        if len(block.bad):
            write_ipc(self._raw_columns(block.bad, "row", "reason"), self.folder / BAD / f"{name}.arrow")

    def _raw_columns(self, rows: pa.Table, *first: str) -> pa.Table:
        """Return the columns `first`, then the raw values by role, and `path` if each row is a file of its own."""
        roles = dict.fromkeys([*self.contract.columns, *[FEATURE + name for name in self.data.features]])
        path = ["path"] if "path" in rows.column_names else []
        return rows.select([*first, *roles, *path])

    def encode(self, rows: pa.Table) -> EncodedBlock:
        """Check, clean and encode `rows`."""
        task, encoder, cleaner = self._tools()
        if encoder is not None:
            rows = task.split_rows(self.contract, encoder, rows)
        rows = check_features(_check_split_column(rows, self.data), self.data)
        checked = check_rows(task, self.contract, rows, cleaner, RowLimits(self.data.max_chars, self.data.labels))
        inputs, lengths = None, np.zeros(len(checked.good), np.int32)
        if encoder is not None:
            inputs, reasons = encoder.encode_block(checked.cleaned)
            encoded = reject_rows(checked, reasons)
            if len(encoded.good) < len(checked.good):
                inputs = inputs.filter(pc.is_null(pa.array(reasons, pa.string())))
            checked, lengths = encoded, np.diff(inputs.offsets.to_numpy())
        identity = identify_rows(checked, task, self.contract)
        facts = {
            "key": pa.array(identity.keys, pa.uint64()),
            "target": pc.dictionary_encode(identity.targets.combine_chunks()),
            "length": pa.array(lengths, pa.int32()),
            **_split_order(checked.good),
            **self._near_duplicate_bands(checked.cleaned),
        }
        return EncodedBlock(checked.good, inputs, pa.table(facts), checked.bad)

    def _near_duplicate_bands(self, cleaned: pa.Table) -> dict[str, pa.Array]:
        """Return columns `band_0`, `band_1` ... of MinHash bands if a `deduplicate` step sets `near`, else {}."""
        steps = self.data.steps
        threshold = next((step.deduplicate.near for step in steps if step.deduplicate and step.deduplicate.near), None)
        if threshold is None:
            return {}
        columns = {name: cleaned[name].to_pylist() for name in cleaned.column_names}
        bands = band_hashes(self.task.comparable_texts(self.contract, columns), threshold)
        return {f"band_{number}": pa.array(band, pa.uint64()) for number, band in enumerate(bands)}

    def row_parts(self, facts: pa.Table, source: int) -> np.ndarray:
        """Return each row's part, int8, or `LEFT_OUT`, from the row's own facts alone: streaming sees no other rows."""
        if self.parts[source] != "train":
            return np.full(len(facts), PARTS.index(self.parts[source]), np.int8)
        keys = facts["key"].to_numpy()
        order = facts["order"].to_numpy() if "order" in facts.column_names else keys
        parts = split_training_rows(order, self.data.split, self.parts)
        for number, step in enumerate(dataset_steps(self.data)):
            if step.sample and step.sample.fraction:
                out = hash_position(keys, step.sample.seed, f"{SAMPLE} {number}") >= step.sample.fraction
                parts[(parts == TRAIN) & out] = LEFT_OUT
        return parts

    @property
    def task(self) -> Any:
        """The task of the contract."""
        return self._tools()[0]

    def _tools(self) -> tuple[Any, Any, Cleaner]:
        return _load_tools(str(self.folder), self.contract.model_dump_json())


@lru_cache(maxsize=2)
def _load_tools(folder: str, contract_json: str) -> tuple[Any, Any, Cleaner]:
    """Return (task, encoder or None, cleaner), once per process.

    Ray Data passes a new copy of the maker with every block. Without the cache, every block would load the encoder's
    vocabulary again and lose the words that the encoder remembers from earlier blocks.
    """
    contract = Contract.model_validate_json(contract_json)
    task = task_of_contract(contract)
    encoder = None if task.learns_from_features else task.encoder(contract, Path(folder))
    return task, encoder, Cleaner(contract)


def _check_split_column(rows: pa.Table, data: DataSpec) -> pa.Table:
    """Bring groups and times into their canonical form; add a reason to rows where they are missing or unreadable."""
    role = GROUP if data.split.by == "group" else TIME
    if role not in rows.column_names:  # not a split by group or time, or a validation or test file
        return rows
    if role == GROUP:
        words = canonical_words(rows[GROUP])
        words = pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)
        rows = rows.set_column(rows.schema.get_field_index(GROUP), GROUP, words)
    reasons = pc.if_else(pc.is_null(rows[role]), f"missing {data.split.column}", pa.scalar(None, pa.string()))
    if role == TIME:
        moments, is_moment = parse_moments(one_array(rows[TIME]))
        times = pa.array(moments, pa.int64(), mask=~is_moment)
        unread = pc.and_(pc.is_valid(rows[TIME]), pc.is_null(times))
        message = pc.binary_join_element_wise(f"{data.split.column}: '", rows[TIME], "' is not an ISO 8601 time", "")
        reasons = pc.coalesce(reasons, pc.if_else(unread, message, pa.scalar(None, pa.string())))
        rows = rows.set_column(rows.schema.get_field_index(TIME), TIME, times)
    return add_reason(rows, reasons)


def check_features(rows: pa.Table, data: DataSpec) -> pa.Table:
    """Add a reason to rows with a cell that does not fit its kind in `data.features`.

    Also adds the column `VALUES_KEY`: a uint64 hash of the features' values, however the cells are written.
    """
    if not data.features:
        return rows
    from trainer.features.fitted import parse_table
    from trainer.features.row_keys import row_keys

    parsed = parse_table(data.features, features_of(rows))
    keys = row_keys(parsed.columns.values(), len(rows))
    rows = add_reason(rows, pa.array(parsed.reasons, pa.string()))
    return rows.append_column(VALUES_KEY, pa.array(keys, pa.uint64()))


def _reason_kind(reason: str) -> str:
    """Return a reason without the values it quotes, so that thousands of different values count as one kind.

    If several cells of a row are bad, the first one counts.
    """
    first = re.split(r"; (?=[^;:]+: )", reason)[0]
    return re.sub(r"'.*'|\".*\"|'.*$", "…", first)


class EncodedTargets(NamedTuple):
    """The targets of a block; each different raw value is encoded once."""

    codes: np.ndarray
    """int32: equal for equal targets; the class id if the target has classes; -1 for an unknown target."""
    encoded: pa.Array
    """The values that the index stores."""


def encode_targets(task: Task, contract: Contract, targets: pa.ChunkedArray) -> EncodedTargets:
    """Encode a dictionary-encoded column of raw targets with the contract."""
    raw = targets.combine_chunks()
    raw = raw.chunk(0) if isinstance(raw, pa.ChunkedArray) and raw.num_chunks else raw
    if not len(raw):
        return EncodedTargets(np.empty(0, np.int32), task.target.encode(contract.fitted, pa.array([], pa.string())))
    codes = task.target.codes(contract.fitted, raw.dictionary)
    encoded = task.target.encode(contract.fitted, raw.dictionary).take(raw.indices)
    return EncodedTargets(codes[raw.indices.to_numpy()], encoded)


def _split_order(good: pa.Table) -> dict[str, pa.Array]:
    """Return the column `order`, the values that a split by group or time uses; {} for a split by content."""
    if GROUP in good.column_names:
        return {"order": pa.array(hash_contents(good[GROUP].to_pylist()), pa.uint64())}
    if TIME in good.column_names:
        return {"order": good[TIME].combine_chunks().cast(pa.int64())}
    return {}
