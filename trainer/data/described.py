"""What the columns of `data.features` are like in the training rows: the profile that live traffic is compared with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from trainer.data.blocks import SHARDS, features_of, read_ipc
from trainer.data.split import TRAIN
from trainer.data.whole import Whole
from trainer.features import fit
from trainer.features.profile import Profile


def described(whole: Whole) -> Profile:
    """Return the profile of the rows that are trained on; of the held-out ones where the others are streamed."""
    return fit.fit_tables(_tables(whole), whole.data.features).profile


def _tables(whole: Whole) -> Iterator[pa.Table]:
    """Yield the features of each block's rows; one block is in memory at a time."""
    streamed = whole.data.mode == "streaming"
    for note, start, end in zip(whole.notes, whole.starts[:-1], whole.starts[1:], strict=True):
        used = (whole.verdicts[start:end] == 0) & (streamed | (whole.parts[start:end] == TRAIN))
        rows = read_ipc(whole.folder / SHARDS / f"{note.name}.arrow").take(pa.array(np.flatnonzero(used)))
        yield features_of(rows)
