"""Read many small files as if they were one: a block costs some milliseconds, however few rows it has.

Neighboring small files of one part become a group, and a group one block. Its rows have their number in their own file,
and its column `path` says which file that is. Only the sizes of the files decide what a group is, so this process and
Ray Data cut the same blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from trainer.data.readers.read import read_blocks
from trainer.data.readers.read_options import ReadOptions
from trainer.data.sources.row_folder import ROW_ENDINGS
from trainer.data.sources.source_file import SourceFile, printable

#: A file up to this size is small, and a group ends with the file that brings it to `_GROUP_BYTES`.
_SMALL_BYTES, _GROUP_BYTES = 64 << 10, 512 << 10
_GROUP_FILES = 1000


def group_files(files: Iterable[SourceFile], options: ReadOptions) -> list[list[SourceFile]]:
    """Return the files in order, small neighbors together. Rows that name files of their own are not small."""
    groups: list[list[SourceFile]] = []
    size = 0
    for file in files:
        is_small = file.size <= _SMALL_BYTES and file.format not in ROW_ENDINGS and not options.binary
        last = groups[-1] if groups else []
        fits = size < _GROUP_BYTES and len(last) < _GROUP_FILES and last and last[-1].part == file.part
        if is_small and fits:
            last.append(file)
            size += file.size
        else:
            groups.append([file])
            size = file.size if is_small else _GROUP_BYTES
    return groups


def read_group(
    group: list[SourceFile],
    options: ReadOptions,
    read: Callable[[SourceFile, ReadOptions], Iterator[pa.Table]] | None = None,
) -> Iterator[pa.Table]:
    """Yield the blocks of a group; `read` reads one file, by default as `read_blocks` does."""
    read = read or (lambda file, options: read_blocks(file, *options))
    if len(group) == 1:
        yield from read(group[0], options)
        return
    blocks = [_with_path(block, file.path) for file in group for block in read(file, options)]
    if blocks:
        yield pa.concat_tables(blocks).combine_chunks()


def _with_path(block: pa.Table, path: str) -> pa.Table:
    if "path" in block.column_names:
        return block
    return block.append_column("path", pa.array([printable(path)] * len(block), pa.string()))
