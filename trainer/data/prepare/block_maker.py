"""One block of raw rows to a shard of model inputs, a sheet of facts about its rows, and its unusable rows: all on storage.

Plain functions of the block: the same bytes whether this process or a Ray Data worker runs them, and a task that Ray
repeats writes the same files. The driver gets a `BlockNote` of each, whose size does not grow with the rows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from trainer.contract import row_hash
from trainer.contract.contract import Contract
from trainer.data.arrow import write_ipc
from trainer.data.folder import BAD, FACTS, INPUTS, SHARDS
from trainer.data.parts import PARTS, TRAIN
from trainer.data.prepare import minhash, split
from trainer.data.prepare.row_checks import Limits, examine, refuse, with_reason
from trainer.spec.data import Data, StepSpec
from trainer.steps.cleaner import Cleaner, of_whole
from trainer.tasks import catalog as task_catalog
from trainer.tasks.base import Task
from trainer.tasks.roles import FEATURE, GROUP, TIME, features_of

#: What a hash is for, where it is not for the split.
SAMPLE = "sample"


#: The part of a row that a stream does not use.
LEFT_OUT = -1


class BlockNote(BaseModel):
    """What the driver keeps of one block."""

    source: int
    """Place of its file among all files of the run."""
    number: int
    """Its place in that file."""
    name: str
    """Name of its shard, facts and bad rows."""
    rows: int
    good: int
    reasons: dict[str, int]
    """Unusable rows by reason."""
    targets: dict[str, int]
    """What the target's `tally` says of the usable rows."""
    held: dict[str, int] = {}
    """Streaming only: usable rows by part, as not all of them are written."""
    streamed: dict[str, int] = {}
    """Streaming only: rows to train on, by class where there are classes."""


class Made(NamedTuple):
    """A block after checking, cleaning and encoding; the first three have a line for each usable row."""

    good: pa.Table
    inputs: pa.ListArray | None
    """None where they are made only after something is fitted from all rows."""
    facts: pa.Table
    bad: pa.Table


class BlockMaker:
    """Makes blocks of one prepared folder. Travels to Ray's workers; tokenizer and steps are loaded where it runs."""

    def __init__(self, data: Data, contract: Contract, folder: Path, parts: list[str]) -> None:
        self.data, self.contract, self.folder, self.parts = data, contract, folder, parts
        """`parts`: what each source file is for, by its place."""

    def __call__(self, rows: pa.Table, source: int, number: int) -> BlockNote:
        """Write what is known of `rows`, block `number` of file `source`, and return the note of it."""
        made = self.encode(rows)
        roles = list(dict.fromkeys([*self.contract.columns, *[FEATURE + name for name in self.data.features]]))
        good, facts, target = made.good, made.facts, self.task.target
        stored = good.select(["row", *roles, *_own_path(good)])
        if made.inputs is not None:
            stored = stored.append_column(INPUTS, made.inputs)
        held: dict[str, int] = {}
        streamed: dict[str, int] = {}
        if self.data.mode == "streaming":
            parts = self.parts_of(facts, source)
            held = {part: int((parts == at).sum()) for at, part in enumerate(PARTS)}
            trained = good[self.task.target_role].filter(pa.array(parts == TRAIN))
            streamed = target.tally(trained) if target.has_classes else {"": len(trained)}
            held_out = pa.array(parts > TRAIN)
            stored, facts = stored.filter(held_out), facts.filter(held_out)
        name = f"{source:07d}-{number:07d}"  # in the order of names, as the index counts them
        write_ipc(stored, self.folder / SHARDS / f"{name}.arrow")
        write_ipc(facts, self.folder / FACTS / f"{name}.arrow")
        if len(made.bad):
            write_ipc(
                made.bad.select(["row", "reason", *roles, *_own_path(made.bad)]), self.folder / BAD / f"{name}.arrow"
            )
        return BlockNote(
            source=source,
            number=number,
            name=name,
            rows=len(rows),
            good=len(good),
            reasons=dict(Counter(_kind(reason) for reason in made.bad["reason"].to_pylist())),
            targets=target.tally(good[self.task.target_role]),
            held=held,
            streamed=streamed,
        )

    def encode(self, rows: pa.Table) -> Made:
        """Check, clean and encode `rows`."""
        task, encoder, cleaner = self._tools()
        rows = _with_features(_ordered(rows, self.data), self.data)
        found = examine(task, self.contract, rows, cleaner, Limits(self.data.max_chars, self.data.labels))
        inputs, lengths = None, np.zeros(len(found.good), np.int32)
        if encoder is not None:
            inputs, refused = encoder.block(found.subjects)
            kept = refuse(found, refused)
            if len(kept.good) < len(found.good):
                inputs = inputs.filter(pc.is_null(pa.array(refused, pa.string())))
            found, lengths = kept, np.diff(inputs.offsets.to_numpy())
        facts = {
            "key": pa.array(_content_keys(found.subjects, task), pa.uint64()),
            "target": pc.dictionary_encode(found.good[task.target_role].combine_chunks()),
            "length": pa.array(lengths, pa.int32()),
            **_order(found.good),
            **_signature(found.subjects, task, self.data.steps),
        }
        return Made(found.good, inputs, pa.table(facts), found.bad)

    def parts_of(self, facts: pa.Table, source: int) -> np.ndarray:
        """Return the part of each row, int8, by its own facts alone, which is what a stream can know; -1 if left out."""
        if self.parts[source] != "train":
            return np.full(len(facts), PARTS.index(self.parts[source]), np.int8)
        keys = facts["key"].to_numpy()
        order = facts["order"].to_numpy() if "order" in facts.column_names else keys
        found = split.of_training_files(order, self.data.split, self.parts)
        for number, step in enumerate(of_whole(self.data)):
            if step.sample and step.sample.fraction:
                out = row_hash.position(keys, step.sample.seed, f"{SAMPLE} {number}") >= step.sample.fraction
                found[(found == TRAIN) & out] = LEFT_OUT
        return found

    @property
    def task(self) -> Any:
        """The task whose rows these are."""
        return self._tools()[0]

    def _tools(self) -> tuple[Any, Any, Cleaner]:
        return _loaded(str(self.folder), self.contract.model_dump_json())


@lru_cache(maxsize=2)
def _loaded(folder: str, contract_json: str) -> tuple[Any, Any, Cleaner]:
    """Return (task, encoder or None, cleaner), once for a process: Ray Data hands every block a new copy of the maker, and the
    encoder would have to load its vocabulary and learn the words of the last block again."""
    contract = Contract.model_validate_json(contract_json)
    task = task_catalog.of(contract)
    encoder = None if task.learns_from_features else task.encoder(contract, Path(folder))
    return task, encoder, Cleaner(contract)


def _own_path(rows: pa.Table) -> list[str]:
    """Rows of a folder of texts each have a file of their own."""
    return ["path"] if "path" in rows.column_names else []


def _ordered(rows: pa.Table, data: Data) -> pa.Table:
    """Give a reason to rows whose group or time cannot be used."""
    role = GROUP if data.split.by == "group" else TIME
    if role not in rows.column_names:  # nothing is split, or these rows are held out as they are
        return rows
    wrong = pc.if_else(pc.is_null(rows[role]), f"missing {data.split.column}", pa.scalar(None, pa.string()))
    if role == TIME:
        times = split.times(rows[TIME].to_pylist())
        unread = pc.and_(pc.is_valid(rows[TIME]), pc.is_null(times))
        shown = pc.binary_join_element_wise(f"{data.split.column}: '", rows[TIME], "' is no ISO 8601 time", "")
        wrong = pc.coalesce(wrong, pc.if_else(unread, shown, pa.scalar(None, pa.string())))
        rows = rows.set_column(rows.schema.get_field_index(TIME), TIME, times)
    return with_reason(rows, wrong)


def _kind(reason: str) -> str:
    """Return a reason without the values it quotes, so that a thousand different ones count as one kind.

    Of a row with several bad cells, the first one's.
    """
    first = re.split(r"; (?=[^;:]+: )", reason)[0]
    return re.sub(r"'.*'|\".*\"|'.*$", "…", first)


class CodedTargets(NamedTuple):
    """The targets of a sheet of facts, looked at once for each different raw value."""

    codes: np.ndarray
    """int32: equal for equal targets; for classes the id; -1 for an unknown one."""
    encoded: pa.Array
    """As the index stores them."""


def coded(task: Task, contract: Contract, targets: pa.ChunkedArray) -> CodedTargets:
    """Return what a dictionary column of raw targets means to the contract."""
    raw = targets.combine_chunks()
    raw = raw.chunk(0) if isinstance(raw, pa.ChunkedArray) and raw.num_chunks else raw
    if not len(raw):
        return CodedTargets(np.empty(0, np.int32), task.target.encode(contract.fitted, pa.array([], pa.string())))
    codes = task.target.codes(contract.fitted, raw.dictionary)
    encoded = task.target.encode(contract.fitted, raw.dictionary).take(raw.indices)
    return CodedTargets(codes[raw.indices.to_numpy()], encoded)


def _with_features(rows: pa.Table, data: Data) -> pa.Table:
    """Give a reason to rows with a feature that cannot be read."""
    if not data.features:
        return rows
    from trainer.features.fitted import check

    wrong = pa.array(check(data.features, features_of(rows)), pa.string())
    return with_reason(rows, wrong)


def _order(good: pa.Table) -> dict[str, pa.Array]:
    """What the split goes by where it is not the row's own content."""
    if GROUP in good.column_names:
        return {"order": pa.array(row_hash.content_keys(good[GROUP].to_pylist()), pa.uint64())}
    if TIME in good.column_names:
        return {"order": good[TIME].combine_chunks().cast(pa.int64())}
    return {}


def _content_keys(subjects: pa.Table, task: Task) -> np.ndarray:
    """Return one key for each row from all its inputs; of a single text or image it is that of its content."""
    columns = [subjects[name].to_pylist() for name in subjects.column_names]
    if len(columns) == 1 and subjects.column_names[0] in {*task.texts, *task.binary}:
        return row_hash.content_keys(columns[0])
    rows = zip(*columns, strict=True)
    return row_hash.content_keys([json.dumps(row, ensure_ascii=False, default=bytes.hex) for row in rows])


def _signature(subjects: pa.Table, task: Task, steps: list[StepSpec]) -> dict[str, pa.Array]:
    wanted = next((step.deduplicate.near for step in steps if step.deduplicate and step.deduplicate.near), None)
    if wanted is None:
        return {}
    texts = [" ".join(row) for row in zip(*[subjects[role].to_pylist() for role in task.texts], strict=True)]
    bands = minhash.bands(texts, wanted)
    return {f"band_{at}": pa.array(column, pa.uint64()) for at, column in enumerate(bands)}
