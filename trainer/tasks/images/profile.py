"""What a profile says of images, beside what `trainer.tasks.profile` says of all rows. Its field:

pixels      of the described rows as the model got them, before normalisation, 0 to 1: a list with an entry for each
            channel, {mean, std, quantiles}; mean and quantiles (21 values, of 0 %, 5 % ... 100 %) are of the images'
            means, std is the mean of the images' standard deviations: brightness and contrast. `rows` is how many
            images they were taken from, at most 2,000, evenly spread over the rows
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.tasks.profile import described_part, distribution, rounded
from trainer.tasks.rows import Rows

_MOST_ROWS = 2_000


def build(parts: Mapping[str, Rows], channels: int) -> dict[str, Any]:
    """Return the field as plain JSON."""
    rows = parts[described_part(parts)]
    chosen: Any = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).astype(int)) if len(rows) else []
    pixels = [rows.inputs(row).reshape(-1, channels) / 255.0 for row in chosen]
    means_RK = np.array([each.mean(axis=0) for each in pixels]).reshape(-1, channels)
    stds_RK = np.array([each.std(axis=0) for each in pixels]).reshape(-1, channels)
    described = [
        {**distribution(means_RK[:, k]), "std": rounded(stds_RK[:, k].mean()) if len(pixels) else None}
        for k in range(channels)
    ]
    return {"pixels": {"rows": len(pixels), "channels": described}}
