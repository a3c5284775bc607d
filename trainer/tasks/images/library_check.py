"""Whether transformers' own image processor gives the same pixels as raymill."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from cluster.errors import ModelError
from trainer.tasks.images.decode import opened, upright_in_8_bits
from trainer.tasks.images.preprocessor import FILE

# Two of 255 steps: resizing cuts and rounds in another order.
_TOLERANCE = 2.01 / 255


def compare(
    folder: Path, raws: Sequence[bytes], mode: str, max_pixels: int, ours: np.ndarray, std: Sequence[float]
) -> str:
    """Hold `ours`, pixel values (rows, channels, height, width), against those of transformers' processor in `folder`.

    Returns in a sentence what was compared. Raises `ModelError` naming the first row that differs.
    """
    if not raws:
        return "not compared: there are no rows"
    if not (folder / FILE).is_file():
        return "not compared: transformers pads no images in this way"
    from transformers import AutoImageProcessor

    library = f"transformers {installed('transformers')}"
    images = [upright_in_8_bits(opened(raw, max_pixels), mode) for raw in raws]
    try:
        # The other backend, torchvision's, resizes a little differently.
        processor = AutoImageProcessor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, backend="pil"
        )
        theirs = np.concatenate([processor(images=image, return_tensors="np")["pixel_values"] for image in images])
    except Exception as error:  # transformers raises its own kinds, ImportError and plain Exception among them
        return f"not compared: {library} cannot read this processor: {str(error).strip().splitlines()[0]}"
    apart = (np.abs(theirs - ours) * np.asarray(std)[:, None, None]).max(axis=(1, 2, 3))
    if apart.max() > _TOLERANCE:
        raise ModelError(
            f"golden row {int(apart.argmax())}: pixels are up to {apart.max() * 255:.0f} of 255 apart from those of {library}",
            f"tell us; until then do not use the folder's {FILE} outside raymill",
        )
    return f"the same pixels as {library} for {len(raws)} rows, to {apart.max() * 255:.1f} of 255"
