"""Streaming: training rows straight from the source files, for data that should not be stored a second time.

Each epoch Ray Data reads, checks, cleans and tokenizes the training files again and hands the rows to the workers.
Preparation and streaming use the same functions to decide row by row which rows are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.errors import DataError
from trainer.data.folder import INPUTS
from trainer.data.parts import TRAIN
from trainer.data.prepare import passes
from trainer.data.prepare.block_maker import BlockMaker, encode_targets
from trainer.data.prepared import Prepared
from trainer.data.readers import read
from trainer.data.readers.read_options import read_options_of_spec
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.spec_sources import list_source_files
from trainer.spec.run import RunSpec

if TYPE_CHECKING:
    import ray.data


def stream_training_rows(spec: RunSpec, prepared: Prepared, files: list[SourceFile] | None = None) -> ray.data.Dataset:
    """Return the training rows of `spec` as a Ray dataset. `inputs` are lists; `target` is encoded as in index.arrow.

    Raises `DataError` if the files have changed since `prepared` counted their rows.
    """
    files = list_source_files(spec) if files is None else files
    options = read_options_of_spec(spec, prepared.contract)
    if read.digest_source_data(files, options) != prepared.summary["sources"]:
        raise DataError(
            "the files of data.train have changed since they were prepared", "run again; the rows are prepared again"
        )
    maker = BlockMaker(spec.data, prepared.contract, prepared.folder, [file.part for file in files])
    training = [file for file in files if file.part == "train"]
    raw = passes.stream_raw_blocks(training, options)
    return raw.map_batches(_EncodeBlocks(maker), batch_size=None, batch_format="pyarrow", num_cpus=passes.ENCODE_CPUS)


class _EncodeBlocks:
    def __init__(self, maker: BlockMaker) -> None:
        self.maker = maker

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for rows, source, _ in passes.unpack_blocks(batch):
            yield self._encode(rows, source)

    def _encode(self, rows: pa.Table, source: Any) -> pa.Table:
        block = self.maker.encode(rows)
        parts = self.maker.row_parts(block.facts, source)
        targets = encode_targets(self.maker.task, self.maker.contract, block.facts["target"]).encoded
        table = pa.table({INPUTS: block.inputs, "target": targets})
        return table.filter(pa.array(parts == TRAIN))
