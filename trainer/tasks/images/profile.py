"""The field of `profile.json` that describes images, besides those in `trainer.tasks.profile`:

pixels      the described rows as model inputs, before normalization, in 0 to 1: {rows, channels}. `rows` is the number
            of images, at most 2,000, evenly spread over the rows. `channels` has one entry per channel:
            {mean, std, quantiles}. Mean and quantiles (21 values, for 0 %, 5 % ... 100 %) are those of the images'
            means (brightness); std is the mean of the images' standard deviations (contrast)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.tasks.profile import described_part, distribution, round_values
from trainer.tasks.rows import RowsView

_MAX_ROWS = 2_000


def build_image_profile(parts: Mapping[str, RowsView], channels: int) -> dict[str, Any]:
    """Return the field as plain JSON."""
    rows = parts[described_part(parts)]
    selected: Any = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MAX_ROWS)).astype(int)) if len(rows) else []
    pixels = [rows.inputs(row).reshape(-1, channels) / 255.0 for row in selected]
    means_RK = np.array([image.mean(axis=0) for image in pixels]).reshape(-1, channels)
    stds_RK = np.array([image.std(axis=0) for image in pixels]).reshape(-1, channels)
    by_channel = [
        {**distribution(means_RK[:, k]), "std": round_values(stds_RK[:, k].mean()) if len(pixels) else None}
        for k in range(channels)
    ]
    return {"pixels": {"rows": len(pixels), "channels": by_channel}}
