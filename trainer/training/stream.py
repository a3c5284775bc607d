"""Training rows straight from the files, for data that should not be written a second time.

Each epoch Ray Data reads, checks, cleans and tokenizes the training files again and hands the rows to the workers; which
rows are used is decided row by row, by the same functions that preparation counted them with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.errors import DataError
from trainer.data.folder import INPUTS
from trainer.data.parts import TRAIN
from trainer.data.prepare import passes
from trainer.data.prepare.block_maker import BlockMaker, coded
from trainer.data.prepared import Prepared
from trainer.data.readers import read
from trainer.data.readers.reading import reading_of
from trainer.data.sources.of_spec import source_files
from trainer.data.sources.resolve import SourceFile
from trainer.spec.run import RunSpec

if TYPE_CHECKING:
    import ray.data


def training_rows(spec: RunSpec, prepared: Prepared, files: list[SourceFile] | None = None) -> ray.data.Dataset:
    """Return the training rows of `spec` as a Ray dataset with `inputs` (lists) and `target`, as the index stores it.

    Raises `DataError` if the files are not those that `prepared` was counted from.
    """
    files = source_files(spec) if files is None else files
    how = reading_of(spec, prepared.contract)
    if read.digest(files, how) != prepared.summary["sources"]:
        raise DataError(
            "the files of data.train have changed since they were prepared", "run again: they are counted anew"
        )
    maker = BlockMaker(spec.data, prepared.contract, prepared.folder, [file.part for file in files])
    training = [file for file in files if file.part == "train"]
    raw = passes.raw_blocks(training, how)
    return raw.map_batches(_Encode(maker), batch_size=None, batch_format="pyarrow", num_cpus=passes.MAKE_CPUS)


class _Encode:
    def __init__(self, maker: BlockMaker) -> None:
        self.maker = maker

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for rows, source, _ in passes.unpacked(batch):
            yield self._one(rows, source)

    def _one(self, rows: pa.Table, source: Any) -> pa.Table:
        made = self.maker.encode(rows)
        parts = self.maker.parts_of(made.facts, source)
        targets = coded(self.maker.task, self.maker.contract, made.facts["target"]).encoded
        table = pa.table({INPUTS: made.inputs, "target": targets})
        return table.filter(pa.array(parts == TRAIN))
