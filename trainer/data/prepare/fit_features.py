"""The columns of `data.features`, fitted on the rows that are trained on: what tasks on tables learn from, and the profile
that live traffic is compared with. One pass over the shards: in this process, or by Ray Data where the rows are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.data.arrow import read_ipc
from trainer.data.folder import SHARDS
from trainer.data.parts import TRAIN
from trainer.data.prepare.judge import RowJudge
from trainer.features import fit
from trainer.features.fit import Fit
from trainer.tasks.roles import features_of


def fit_features(judge: RowJudge, *, with_ray: bool) -> Fit:
    """Return fitted columns and their profile, from the rows that are trained on; where those are streamed, from the
    held-out ones. Raises `DataError` where nothing can be fitted.
    """
    lines = _lines(judge)
    read = _ReadFeatures(judge.facts.folder)
    if not with_ray:
        return fit.fit_tables((read.one(line) for line in lines), judge.data.features)
    import ray.data

    from trainer.data.prepare.passes import quiet_ray_data

    quiet_ray_data()
    everything = list(lines)
    rows = ray.data.from_items(everything, override_num_blocks=len(everything)).map_batches(
        read, batch_size=1, batch_format="pyarrow"
    )
    return fit.fit(rows, judge.data.features)


def _lines(judge: RowJudge) -> Iterator[dict[str, Any]]:
    """Yield each shard's name and which of its rows are trained on, a bit each."""
    streamed = judge.data.mode == "streaming"
    for note, start, end in zip(judge.facts.notes, judge.facts.starts[:-1], judge.facts.starts[1:], strict=True):
        used = (judge.verdicts[start:end] == 0) & (streamed | (judge.parts[start:end] == TRAIN))
        yield {"name": note.name, "used": np.packbits(used).tobytes()}


class _ReadFeatures:
    """A generator for Ray Data: of an error in a plain function it keeps no cause."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for line in batch.to_pylist():
            yield self.one(line)

    def one(self, line: dict[str, Any]) -> pa.Table:
        """Return the feature columns of one shard's rows, under the user's names. One block is in memory at a time."""
        rows = features_of(read_ipc(self.folder / SHARDS / f"{line['name']}.arrow"))
        used = np.unpackbits(np.frombuffer(line["used"], np.uint8), count=len(rows))
        return rows.take(pa.array(np.flatnonzero(used)))
