"""Thumbnails of images for reports, embedded in the page."""

from __future__ import annotations

import base64
import io

from markupsafe import Markup
from PIL import Image

from trainer.tasks.images.decode import UnusableImage, decode_upright, open_image

#: Length of the longer side on the page, in pixels.
SIDE = 56
# A report may show images that are too large for a request.
_MAX_PIXELS = 170_000_000


def thumbnail(raw: bytes) -> Markup:
    """Return an <img> element, or the reason as text for a damaged image. A small image is enlarged pixel by pixel."""
    try:
        image = decode_upright(open_image(raw, _MAX_PIXELS), "rgb")
    except UnusableImage as error:
        return Markup("<em>{}</em>").format(str(error))
    width, height = image.size
    scale = SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale < 1:
        image = image.resize(size, Image.Resampling.BILINEAR)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    content = base64.b64encode(sink.getvalue()).decode("ascii")
    return Markup(
        '<img src="data:image/png;base64,{}" width="{}" height="{}" alt="{} x {} pixels" style="image-rendering: {}">'
    ).format(content, *size, width, height, "pixelated" if scale > 1 else "auto")
