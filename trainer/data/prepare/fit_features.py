"""Fit the columns of `data.features` on the training rows.

Tabular tasks learn from the fitted columns. The profile of the columns describes the training rows. Fitting takes one
pass over the shards: in this process, or with Ray Data if there are many rows.
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
from trainer.features.fit import FitResult, fit_features, fit_tables
from trainer.tasks.roles import features_of


def fit_training_features(judge: RowJudge, *, with_ray: bool) -> FitResult:
    """Return the fitted columns and their profile.

    They are fitted on the training rows, or on the held-out rows if training is streamed. Raises `DataError` if nothing
    can be fitted.
    """
    shards = _shard_masks(judge)
    reader = _FeatureReader(judge.facts.folder)
    if not with_ray:
        return fit_tables((reader.read(shard) for shard in shards), judge.data.features)
    import ray.data

    from trainer.data.prepare.passes import quiet_ray_data

    quiet_ray_data()
    items = list(shards)
    rows = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        reader, batch_size=1, batch_format="pyarrow"
    )
    return fit_features(rows, judge.data.features)


def _shard_masks(judge: RowJudge) -> Iterator[dict[str, Any]]:
    """Yield each shard's name and a packed mask of the rows to fit on."""
    is_streamed = judge.data.mode == "streaming"
    for stats, start, end in zip(judge.facts.stats, judge.facts.starts[:-1], judge.facts.starts[1:], strict=True):
        used = (judge.verdicts[start:end] == 0) & (is_streamed | (judge.parts[start:end] == TRAIN))
        yield {"name": stats.name, "used": np.packbits(used).tobytes()}


class _FeatureReader:
    """Reads feature columns of shards.

    `__call__` is a generator: Ray Data drops the cause of an error that a plain function raises.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for shard in batch.to_pylist():
            yield self.read(shard)

    def read(self, shard: dict[str, Any]) -> pa.Table:
        """Return the feature columns of one shard's used rows, under the user's names."""
        rows = features_of(read_ipc(self.folder / SHARDS / f"{shard['name']}.arrow"))
        used = np.unpackbits(np.frombuffer(shard["used"], np.uint8), count=len(rows))
        return rows.take(pa.array(np.flatnonzero(used)))
