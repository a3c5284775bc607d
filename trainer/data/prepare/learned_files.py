"""Files of a contract that are learned from the training rows before any row is encoded, such as a new tokenizer.

They are made once, in this process, and stored by the content of the training files: `learned/<key>/` in the storage.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cluster.files import OWNER_FILE, json_sha256, new_folder
from trainer.contract.contract import PREPARATION_VERSION
from trainer.data.readers.read import read_blocks
from trainer.data.readers.read_options import ReadOptions, make_read_options
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.source_files import digest_files
from trainer.spec.run import RunSpec
from trainer.tasks.base import Task
from trainer.tasks.columns import columns_of

LEARNED = "learned"


def add_learned_files(spec: RunSpec, task: Task, files: list[SourceFile], folder: Path) -> None:
    """Write the files that the task learns from the training rows into `folder`; nothing if it learns none.

    The rows are those of the training files, also if some are later held out.
    """
    settings = task.learned_files(spec)
    if settings is None:
        return
    train = [file for file in files if file.part == "train"]
    options = make_read_options(task, columns_of(task, spec))
    key = json_sha256([settings, options.columns, digest_files(train), PREPARATION_VERSION])[:16]
    stored = Path(spec.storage) / LEARNED / key
    if not stored.is_dir():
        # Another run may have made the same folder meanwhile: same key, same content.
        with contextlib.suppress(FileExistsError), new_folder(stored) as beside:
            task.write_learned_files(spec, _usable_rows(train, options), beside)
    for path in stored.iterdir():
        if path.name != OWNER_FILE:
            shutil.copyfile(path, folder / path.name)


def _usable_rows(files: list[SourceFile], options: ReadOptions) -> Iterator[pa.Table]:
    """Yield the rows of the files that could be read, with a column for each role."""
    for file in files:
        for block in read_blocks(file, *options):
            yield block.filter(pc.is_null(block["reason"])).select(list(options.columns))
