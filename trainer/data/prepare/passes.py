"""The pass over all raw rows: in this process where they are few, with Ray Data where they are many.

Both hand the same blocks (as the readers cut them) to the same `BlockMaker`, so what they write is equal to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.errors import user_error_in
from cluster.progress import Progress
from trainer.data.prepare.block_maker import BlockMaker, BlockNote
from trainer.data.readers.read import read_blocks
from trainer.data.readers.reading import Reading
from trainer.data.sources.resolve import SourceFile
from trainer.tasks.roles import GROUP, TIME

if TYPE_CHECKING:
    import ray.data

# Formats that compress their content about so much.
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst", ".lz4", ".br", ".parquet"}
_COMPRESSION = 4
# What the path of an image stands for: some 50 characters for some 50 KB.
_TEXTS, _NAMED = {"csv", "tsv", "jsonl"}, 1000

#: What reading and making ask of a core: both fit on one, and with two cores making has one and nearly the other.
_READ_CPUS, MAKE_CPUS = 0.1, 0.9

OnProgress = Callable[[Progress], None]

# What a block of Ray Data's may hold before the next task gets it: two or three of ours. Each task costs some 50 ms to start.
_RAY_BLOCK_BYTES = 4 << 20
# Raw rows that may wait between reading and making: they lie in memory that every process of the node maps.
_WAITING_BYTES = 192 << 20


def here(maker: BlockMaker, files: list[SourceFile], reading: Reading, on_progress: OnProgress) -> list[BlockNote]:
    """Make all blocks in this process."""
    notes: list[BlockNote] = []
    done = 0
    for file in files:
        for number, rows in enumerate(blocks_of(file, reading)):
            notes.append(maker(rows, file.place, number))
            done += len(rows)
            on_progress(Progress(done=done, unit="rows"))
    return notes


def with_ray(maker: BlockMaker, files: list[SourceFile], reading: Reading, on_progress: OnProgress) -> list[BlockNote]:
    """Make all blocks with Ray Data: files are read side by side, and their blocks go to all cores."""
    import ray.exceptions

    # A different share of a core keeps Ray Data from fusing this into the reading: blocks of one file go to all cores.
    made = raw_blocks(files, reading).map_batches(
        _MakeWhole(maker), batch_size=None, batch_format="pyarrow", num_cpus=MAKE_CPUS, zero_copy_batch=True
    )
    notes: list[BlockNote] = []
    done = 0
    try:
        for row in made.iter_rows():
            notes.append(BlockNote.model_validate_json(row["note"]))
            done += notes[-1].rows
            on_progress(Progress(done=done, unit="rows"))
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None
    return sorted(notes, key=lambda note: (note.source, note.number))


def blocks_of(file: SourceFile, reading: Reading) -> Iterator[pa.Table]:
    """Yield the blocks of one file; rows that are held out as they are need no column to split by."""
    if file.part != "train":
        columns = {role: column for role, column in reading.columns.items() if role not in (GROUP, TIME)}
        reading = reading._replace(columns=columns, loose=reading.loose & columns.keys())
    return read_blocks(file, *reading)


def size_of(files: list[SourceFile], *, names_files: bool = False) -> int:
    """Return about how many bytes of text the files hold; a remote file counts as large.

    `names_files`: a row of a text file may be the path of a file of its own.
    """
    total = 0
    for file in files:
        path = Path(file.path)
        if "://" in file.path:
            return 1 << 40
        inner = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
        factor = _COMPRESSION if path.suffix in _COMPRESSED else 1
        if names_files and file.format in _TEXTS:
            factor *= _NAMED
        total += factor * sum(each.stat().st_size for each in inner)
    return total


def quiet_ray_data(*, preserve_order: bool = False) -> None:
    """Turn Ray Data's own progress bars off: raymill shows one line a stage."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = preserve_order


def raw_blocks(files: list[SourceFile], reading: Reading) -> ray.data.Dataset:
    """Return the blocks of `files` as a Ray dataset, a line each (`unpacked` opens them).

    What it holds between its stages stays small, however many rows there are.
    """
    import ray.data

    quiet_ray_data()
    items = [file._asdict() for file in files]
    raw = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _ReadWhole(reading), batch_size=1, batch_format="pyarrow", num_cpus=_READ_CPUS, zero_copy_batch=True
    )
    raw.context.target_max_block_size = _RAY_BLOCK_BYTES
    options = raw.context.execution_options
    options.resource_limits = options.resource_limits.copy(object_store_memory=_WAITING_BYTES)
    return raw


class _ReadWhole:
    """Files (a line each) to blocks of rows, a line each, so that Ray Data cannot cut or join them."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for line in batch.to_pylist():
            file = SourceFile(**line)
            for number, rows in enumerate(blocks_of(file, self.reading)):
                yield pa.table(
                    {
                        "source": pa.array([file.place], pa.int32()),
                        "number": pa.array([number], pa.int32()),
                        "rows": pa.array([_pack(rows)], pa.large_binary()),
                    }
                )


class _MakeWhole:
    def __init__(self, maker: BlockMaker) -> None:
        self.maker = maker

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        # A generator: of an error in a plain function Ray Data keeps no cause, and the user's message would be lost.
        for rows, source, number in unpacked(batch):
            yield pa.table({"note": [self.maker(rows, source, number).model_dump_json()]})


def unpacked(batch: pa.Table) -> Iterator[tuple[pa.Table, Any, Any]]:
    """Yield (rows, source, number) of a batch that `raw_blocks` made."""
    for at in range(len(batch)):
        rows = pa.ipc.open_stream(batch["rows"][at].as_buffer()).read_all()
        yield rows, batch["source"][at].as_py(), batch["number"][at].as_py()


def _pack(table: pa.Table) -> bytes:
    """Return a table as one Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
