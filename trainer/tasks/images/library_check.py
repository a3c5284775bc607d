"""Comparison of raymill's pixels with those of transformers' own image processor."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cluster.errors import ModelError, first_line
from trainer.tasks.images.decode import decode_upright, open_image
from trainer.tasks.images.preprocessor import PREPROCESSOR_FILE

# Two of 255 steps: transformers resizes, crops and rounds in another order.
_TOLERANCE = 2.01 / 255


def compare_pixels(
    folder: Path, raws: Sequence[bytes], mode: str, max_pixels: int, ours: np.ndarray, std: Sequence[float]
) -> str:
    """Compare `ours`, pixel values (rows, channels, height, width), with those of transformers' processor in `folder`.

    Returns a sentence that says what was compared. Raises `ModelError` naming the first row that differs.
    """
    if not raws:
        return "not compared: there are no rows"
    if not (folder / PREPROCESSOR_FILE).is_file():
        return "not compared: transformers does not pad images in this way"
    from transformers import AutoImageProcessor

    library = f"transformers {version('transformers')}"
    images = [decode_upright(open_image(raw, max_pixels), mode) for raw in raws]
    try:
        # The torchvision backend resizes slightly differently.
        processor = AutoImageProcessor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, backend="pil"
        )
        theirs = np.concatenate([processor(images=image, return_tensors="np")["pixel_values"] for image in images])
    except Exception as error:  # transformers raises many types, including ImportError and plain Exception
        return f"not compared: {library} cannot read this processor: {first_line(error)}"
    distance_B = (np.abs(theirs - ours) * np.asarray(std)[:, None, None]).max(axis=(1, 2, 3))
    if distance_B.max() > _TOLERANCE:
        raise ModelError(
            f"golden row {int(distance_B.argmax())}: pixels differ from those of {library} by up to "
            f"{distance_B.max() * 255:.0f} of 255",
            f"report this as a bug; until then do not use the folder's {PREPROCESSOR_FILE} outside raymill",
        )
    return f"the same pixels as {library} for {len(raws)} rows, to {distance_B.max() * 255:.1f} of 255"
