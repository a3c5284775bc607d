"""Run the pass over all raw rows: in this process for small data, with Ray Data for large data.

Both pass the same blocks, as the readers cut them, to the same `BlockMaker`, so both write the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.errors import ResourceError, user_error_in
from cluster.files import storage_error, wait_for_folders
from cluster.progress import Progress
from trainer.data.prepare.block_maker import BlockMaker, BlockStats
from trainer.data.readers.file_groups import group_files, read_group
from trainer.data.readers.read import read_blocks
from trainer.data.readers.read_options import ReadOptions
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.streams import COMPRESSIONS
from trainer.tasks.roles import GROUP, TIME

if TYPE_CHECKING:
    import ray.data
    import ray.exceptions

#: CPUs that a reading task and an encoding task reserve. One core runs one task of each kind; two cores run one reading
#: task and two encoding tasks.
_READ_CPUS, ENCODE_CPUS = 0.1, 0.9
# Files with these extensions hold about `_COMPRESSION` bytes of text per byte.
_COMPRESSED = {*COMPRESSIONS, ".parquet", ".pq"}
_COMPRESSION = 4
# In these formats a row may be the path of an image: about 50 characters stand for about 50 KB.
_TEXT_FORMATS, _BYTES_PER_PATH_CHAR = {"csv", "tsv", "jsonl"}, 1000
# Size of a Ray Data block: two or three of our blocks, because Ray takes about 50 ms to start the task of a block.
_RAY_BLOCK_BYTES = 4 << 20
#: Bytes of raw rows that may wait between reading and encoding, in shared memory that every process of the node maps.
WAITING_BYTES = 192 << 20

OnProgress = Callable[[Progress], None]


def run_local(
    maker: BlockMaker, files: list[SourceFile], options: ReadOptions, on_progress: OnProgress
) -> list[BlockStats]:
    """Write all blocks in this process."""
    stats: list[BlockStats] = []
    n_rows = 0
    for group in group_files(files, options):
        for block_number, rows in enumerate(read_group(group, options, read_file_blocks)):
            stats.append(maker(rows, group[0].number, block_number))
            n_rows += len(rows)
            on_progress(Progress(done=n_rows, unit="rows"))
    return stats


def run_ray(
    maker: BlockMaker, files: list[SourceFile], options: ReadOptions, on_progress: OnProgress
) -> list[BlockStats]:
    """Write all blocks with Ray Data: files are read in parallel, and their blocks go to all cores."""
    import ray.exceptions

    # Ray Data does not fuse stages with different CPU shares, so the blocks of one file go to all cores.
    blocks = stream_raw_blocks(files, options).map_batches(
        _WriteBlocks(maker), batch_size=None, batch_format="pyarrow", num_cpus=ENCODE_CPUS, zero_copy_batch=True
    )
    stats: list[BlockStats] = []
    n_rows = 0
    try:
        for row in blocks.iter_rows():
            stats.append(BlockStats.model_validate_json(row["stats"]))
            n_rows += stats[-1].rows
            on_progress(Progress(done=n_rows, unit="rows"))
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or _storage_error_in(error, maker.folder) or error from None
    return sorted(stats, key=lambda block: (block.source, block.number))


def _storage_error_in(error: ray.exceptions.RayTaskError, folder: Path) -> ResourceError | None:
    """Return the error of a task that could not write to `folder`; Ray Data wraps the errors of its tasks."""
    cause: BaseException | None = error.cause
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return storage_error(folder, cause) if cause is not None else None


def read_file_blocks(file: SourceFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Yield the blocks of one file. Validation and test files are not split, so they need no group or time column."""
    if file.part != "train":
        columns = {role: column for role, column in options.columns.items() if role not in (GROUP, TIME)}
        options = options._replace(columns=columns, loose=options.loose & columns.keys())
    return read_blocks(file, *options)


def estimate_text_bytes(files: list[SourceFile], *, names_files: bool = False) -> int:
    """Return roughly how many bytes of text the files hold; a remote file counts as large.

    With `names_files`, a row of a csv, tsv or jsonl file may be the path of a file, for example of an image.
    """
    total = 0
    for file in files:
        if "://" in file.path:
            return 1 << 40
        factor = _COMPRESSION if Path(file.path).suffix.lower() in _COMPRESSED else 1
        if names_files and file.format in _TEXT_FORMATS:
            factor *= _BYTES_PER_PATH_CHAR
        total += factor * file.size
    return total


def quiet_ray_data(*, preserve_order: bool = False) -> None:
    """Turn Ray Data's own progress bars off: raymill shows one line per stage."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = preserve_order


def stream_raw_blocks(files: list[SourceFile], options: ReadOptions) -> ray.data.Dataset:
    """Return the blocks of `files` as a Ray dataset with one row per block, which `unpack_blocks` opens.

    The memory it uses between its stages is bounded, whatever the number of rows.
    """
    import ray.data

    quiet_ray_data()
    items = [json.dumps([file._asdict() for file in group]) for group in group_files(files, options)]
    blocks = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _ReadFiles(options), batch_size=1, batch_format="pyarrow", num_cpus=_READ_CPUS, zero_copy_batch=True
    )
    blocks.context.target_max_block_size = _RAY_BLOCK_BYTES
    execution = blocks.context.execution_options
    execution.resource_limits = execution.resource_limits.copy(object_store_memory=WAITING_BYTES)
    return blocks


class _ReadFiles:
    """Turns groups of files (one per row, as JSON) into packed blocks (one per row).

    Ray Data cannot cut or join packed blocks.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.options = options

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for item in batch["item"].to_pylist():
            group = [SourceFile(**file) for file in json.loads(item)]
            for block_number, rows in enumerate(read_group(group, self.options, read_file_blocks)):
                yield pa.table(
                    {
                        "source": pa.array([group[0].number], pa.int32()),
                        "number": pa.array([block_number], pa.int32()),
                        "rows": pa.array([_pack(rows)], pa.large_binary()),
                    }
                )


class _WriteBlocks:
    """Writes packed blocks.

    `__call__` is a generator: Ray Data drops the cause of an error that a plain function raises.
    """

    def __init__(self, maker: BlockMaker) -> None:
        self.maker = maker

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        wait_for_folders([self.maker.folder])
        for rows, source, number in unpack_blocks(batch):
            yield pa.table({"stats": [self.maker(rows, source, number).model_dump_json()]})


def unpack_blocks(batch: pa.Table) -> Iterator[tuple[pa.Table, Any, Any]]:
    """Yield (rows, source, number) for each block in a batch of `stream_raw_blocks`."""
    for index in range(len(batch)):
        rows = pa.ipc.open_stream(batch["rows"][index].as_buffer()).read_all()
        yield rows, batch["source"][index].as_py(), batch["number"][index].as_py()


def _pack(table: pa.Table) -> bytes:
    """Return a table as the bytes of an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
