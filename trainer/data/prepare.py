"""Raw files to a prepared folder, in one pass of Ray Data, made once and found again.

Ray Data reads, checks, tokenizes and writes shards, block by block; the driver sees only each block's small columns
(targets, lengths, content keys), fits the contract from them and writes the index.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import DataError, ResourceError, user_error_in
from cluster.files import new_folder, sha256_of, sweep, write_json
from cluster.progress import Progress
from trainer import tasks
from trainer.contract import PREPARATION_VERSION, Contract
from trainer.data import sources
from trainer.data.prepared import INDEX, QUARANTINE, SHARDS, SUMMARY, Prepared
from trainer.data.read import read_blocks
from trainer.data.sources import SourceFile
from trainer.data.split import PARTS, TEST, TRAIN, VALIDATION, content_keys, hold_out
from trainer.spec import RunSpec

OnProgress = Callable[[Progress], None]


def find(spec: RunSpec) -> Prepared | None:
    """Return the prepared rows of `spec` if they are on storage; needs no Ray. Raises `DataError` for missing files."""
    with _staged(spec) as staged:
        return Prepared(staged.there) if staged.there else None


def prepare(spec: RunSpec, on_progress: OnProgress, quarantine_to: Path) -> Prepared:
    """Return the prepared rows of `spec`, making them with Ray Data if they are not on storage yet.

    Rows that cannot be used are written to `quarantine_to` too. Raises `DataError` when the files, the columns or too
    many rows are wrong.
    """
    with _staged(spec) as staged:
        if staged.there:
            return Prepared(staged.there)
        blocks = _run_ray_data(spec, staged.files, staged.unfitted, staged.folder, on_progress)
        bad = pa.concat_tables([block.bad for block in blocks])
        n_rows = sum(len(block.good) for block in blocks) + len(bad)
        _judge_bad_rows(bad, n_rows, spec.data.max_bad_fraction, quarantine_to)
        contract, index = _index(spec, staged.unfitted, staged.files, blocks)
        if len(bad):
            pq.write_table(bad, staged.folder / QUARANTINE)
        _write_ipc(index, staged.folder / INDEX)
        contract.save(staged.folder)
        shards = {block.shard: len(block.good) for block in blocks}
        write_json(staged.folder / SUMMARY, {**_summary(index, bad), "shards": shards})
        final = _root(spec) / f"{contract.fingerprint[:16]}-{staged.key}"
        # If another run made the same folder meanwhile: same key, same content.
        with contextlib.suppress(FileExistsError), new_folder(final) as beside:
            for path in list(staged.folder.iterdir()):
                path.rename(beside / path.name)
    return Prepared(final)


def source_files(spec: RunSpec) -> list[SourceFile]:
    """Return all files of the spec's data; raises `DataError` for the first that is not there."""
    files = sources.find(spec.data.train, "train", spec.data.format)
    for part in ("validation", "test"):
        given = getattr(spec.data, part)
        if given:
            files += sources.find(given, part, spec.data.format, first_index=len(files))
    sources.refuse_twice(files)
    return files


def _settings(spec: RunSpec) -> dict[str, Any]:
    return {"split": spec.data.split.model_dump(), "max_bad_fraction": spec.data.max_bad_fraction}


def _root(spec: RunSpec) -> Path:
    return Path(spec.storage) / "prepared"


class _Staged(NamedTuple):
    """What is known before any row is read."""

    files: list[SourceFile]
    unfitted: Contract
    folder: Path
    """Holds the contract's files; removed at the end."""
    key: str
    """Digest of all that decides what the prepared rows will be."""
    there: Path | None
    """The finished folder of an earlier run with the same key."""


@contextlib.contextmanager
def _staged(spec: RunSpec) -> Iterator[_Staged]:
    files = source_files(spec)
    root = _root(spec)
    folder = root / f".staging-{uuid.uuid4().hex[:8]}"
    try:
        sweep(root)
        folder.mkdir(parents=True)
    except OSError as error:
        raise ResourceError(
            f"storage={spec.storage!r} cannot be written: {error.strerror}", "name a folder you may write to"
        ) from error
    try:
        unfitted = tasks.get(spec.task).begin(spec, folder)
        key = sha256_of([_settings(spec), sources.digest(files), unfitted.fingerprint, PREPARATION_VERSION])[:16]
        there = next((path for path in root.glob(f"*-{key}") if (path / SUMMARY).is_file()), None)
        yield _Staged(files, unfitted, folder, key, there)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Block(NamedTuple):
    """What the driver keeps of one block of rows."""

    source: int
    shard: str
    good: pa.Table
    """target, key, length; one line for each usable row, in the shard's order"""
    bad: pa.Table
    """source, row, reason, raw values"""


def _run_ray_data(
    spec: RunSpec, files: list[SourceFile], contract: Contract, folder: Path, on_progress: OnProgress
) -> list[_Block]:
    import ray.data

    (folder / SHARDS).mkdir()
    quiet_ray_data()
    items = [file._asdict() for file in files]
    rows = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ReadFile(contract.columns), batch_size=1, batch_format="pyarrow", num_cpus=0.5, zero_copy_batch=True
    )
    # A different share of a core keeps Ray Data from fusing this into the reading: blocks of one file go to all cores.
    summaries = rows.map_batches(
        _EncodeAndWrite(spec.task, contract, str(folder)), batch_size=None, batch_format="pyarrow", num_cpus=1
    )
    blocks: list[_Block] = []
    done = 0
    try:
        for row in summaries.iter_rows():
            blocks.append(_Block(row["source"], row["shard"], _from_bytes(row["good"]), _from_bytes(row["bad"])))
            done += len(blocks[-1].good) + len(blocks[-1].bad)
            on_progress(Progress(done=done, unit="rows"))
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None
    return sorted(blocks, key=lambda block: (block.source, block.shard))


def quiet_ray_data(*, preserve_order: bool = False) -> None:
    """Turn Ray Data's own progress bars off: raymill shows one line a stage."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = preserve_order


class ReadFile:
    """One file (a batch of one line) to blocks of rows."""

    def __init__(self, columns: dict[str, str]) -> None:
        self.columns = columns

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for line in batch.to_pylist():
            file = SourceFile(**line)
            for number, block in enumerate(read_blocks(file, self.columns)):
                yield (
                    block.append_column("source", pa.array([file.place] * len(block), pa.int32()))
                    .append_column("block", pa.array([number] * len(block), pa.int32()))
                    .append_column("path", pa.array([file.path] * len(block), pa.string()))
                )


class _EncodeAndWrite:
    """A block of raw rows to a shard on storage and one line about it. A task that Ray repeats writes the same file."""

    def __init__(self, task: str, contract: Contract, folder: str) -> None:
        self.task, self.contract, self.folder = task, contract, folder
        self._encoder: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    def __call__(self, rows: pa.Table) -> pa.Table:
        if len(rows) == 0:
            return pa.table({"source": [], "shard": [], "good": [], "bad": []})
        lines = [self._one(part) for part in _by_source(rows)]
        return pa.table({name: [line[name] for line in lines] for name in ("source", "shard", "good", "bad")})

    def _one(self, rows: pa.Table) -> dict[str, Any]:
        task = tasks.get(self.task)
        if self._encoder is None:
            self._encoder = task.encoder(self.contract, Path(self.folder))
        roles = list(task.roles)
        good, bad = check_rows(task, rows)
        source, first = rows["source"][0].as_py(), rows["block"][0].as_py()
        shard = f"{source:05d}-{first:06d}-{rows['row'][0].as_py():012d}.arrow"
        raw = {role: good[role].to_pylist() for role in roles}
        inputs = self._encoder(raw[task.subject])
        offsets = np.cumsum([0, *[len(ids) for ids in inputs]], dtype=np.int32)
        values = np.concatenate(inputs) if inputs else np.empty(0, np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, pa.int32()))
        stored = pa.table(
            {"source": good["source"], "row": good["row"], **{role: good[role] for role in roles}, "input_ids": column}
        )
        _write_ipc(stored.combine_chunks(), Path(self.folder) / SHARDS / shard)
        summary = pa.table(
            {
                "target": good[task.target],
                "key": pa.array(content_keys(*[raw[role] for role in roles]), pa.uint64()),
                "length": pa.array(np.diff(offsets), pa.int32()),
            }
        )
        return {
            "source": source,
            "shard": shard,
            "good": _to_bytes(summary),
            "bad": _to_bytes(bad.select(["path", "row", "reason", *roles])),
        }


def check_rows(task: Any, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return (usable rows, unusable rows with `reason` filled)."""
    reasons = pc.coalesce(rows["reason"], task.check(rows))
    rows = rows.set_column(rows.schema.get_field_index("reason"), "reason", reasons)
    usable = pc.is_null(rows["reason"])
    return rows.filter(usable), rows.filter(pc.invert(usable))


def _by_source(rows: pa.Table) -> Iterator[pa.Table]:
    """Split a block that Ray Data merged from several files."""
    keys = rows["source"].to_numpy().astype(np.int64) << 32 | rows["block"].to_numpy()
    borders = np.flatnonzero(np.diff(keys)) + 1
    for start, end in zip([0, *borders], [*borders, len(rows)], strict=True):
        yield rows.slice(start, end - start)


def _judge_bad_rows(bad: pa.Table, n_rows: int, allowed: float, quarantine_to: Path) -> None:
    if not len(bad):
        return
    quarantine_to.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(bad, quarantine_to)
    if len(bad) <= allowed * n_rows:
        return
    counts = ", ".join(f"{reason}: {count}" for reason, count in Counter(bad["reason"].to_pylist()).most_common())
    first = bad.slice(0, 1).to_pylist()[0]
    raise DataError(
        f"{len(bad)} of {n_rows} rows cannot be used ({counts}), more than data.max_bad_fraction={allowed:g} allows; "
        f"the first is row {first['row']} of {first['path']}",
        f"repair the rows listed in {quarantine_to}, or raise data.max_bad_fraction",
    )


def _index(
    spec: RunSpec, unfitted: Contract, files: list[SourceFile], blocks: list[_Block]
) -> tuple[Contract, pa.Table]:
    """Fit the contract on the training files' targets and place every row in a part."""
    task = tasks.get(spec.task)
    part_of_file = np.array([PARTS.index(file.part) for file in files])
    good = pa.concat_tables([block.good for block in blocks])
    sizes = [len(block.good) for block in blocks]
    file_part = part_of_file[np.repeat([block.source for block in blocks], sizes)]
    targets = good["target"]
    contract = task.fit(unfitted, targets.filter(pa.array(file_part == TRAIN)))
    target_ids = task.target_ids(contract, targets)
    _refuse_unseen(targets, target_ids, file_part, files)
    parts = file_part.astype(np.int8)
    to_split = np.flatnonzero(file_part == TRAIN)
    parts[to_split] = hold_out(
        good["key"].to_numpy()[to_split],
        target_ids[to_split],
        validation=0.0 if spec.data.validation else spec.data.split.validation,
        test=0.0 if spec.data.test else spec.data.split.test,
        seed=spec.data.split.seed,
        stratify=spec.data.split.stratify,
    )
    for part in (TRAIN, VALIDATION, TEST):
        if not (parts == part).any():
            raise DataError(
                f"no row is left for {PARTS[part]}: there are {len(good)} usable rows in all",
                f"add rows, raise data.split.{PARTS[part]}, or give data.{PARTS[part]}",
            )
    shard_names = sorted(block.shard for block in blocks)  # the order in which `Prepared` opens them
    index = pa.table(
        {
            "part": pa.array(parts, pa.int8()),
            "shard": pa.array(np.repeat([shard_names.index(block.shard) for block in blocks], sizes), pa.int32()),
            "offset": pa.array(np.concatenate([np.arange(size) for size in sizes]), pa.int32()),
            "target_id": pa.array(target_ids, pa.int32()),
            "length": good["length"].combine_chunks(),
        }
    )
    return contract, index


def _refuse_unseen(
    targets: pa.ChunkedArray, target_ids: np.ndarray, file_part: np.ndarray, files: list[SourceFile]
) -> None:
    unseen = np.flatnonzero(target_ids < 0)
    if not len(unseen):
        return
    first = int(unseen[0])
    part = PARTS[file_part[first]]
    names = sorted(set(targets.take(pa.array(unseen)).to_pylist()))
    shown = ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
    raise DataError(
        f"{len(unseen)} {part} rows have a label that no training row has: {shown}",
        f"add training rows of it, or take it out of data.{part} ({', '.join(f.path for f in files if f.part == part)})",
    )


def _summary(index: pa.Table, bad: pa.Table) -> dict[str, Any]:
    parts = Counter(index["part"].to_pylist())
    return {
        "rows": {PARTS[part]: parts[part] for part in (TRAIN, VALIDATION, TEST)},
        "quarantined": dict(Counter(bad["reason"].to_pylist())),
        "tokens": int(pc.sum(index["length"]).as_py()),
    }


def _write_ipc(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()
