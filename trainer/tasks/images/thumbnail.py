"""An image as a report shows it: small, inside the page."""

from __future__ import annotations

import base64
import io

from markupsafe import Markup
from PIL import Image

from trainer.tasks.images.decode import Unusable, opened, upright_in_8_bits

#: Longer side on the page, pixels.
SIDE = 56
# An image in a report may be one that no request may send.
_MAX_PIXELS = 170_000_000


def thumbnail(raw: bytes) -> Markup:
    """Return an <img> with the picture in it; a small image is shown larger, pixel by pixel. Damaged ones are words."""
    try:
        image = upright_in_8_bits(opened(raw, _MAX_PIXELS), "rgb")
    except Unusable as error:
        return Markup("<em>{}</em>").format(str(error))
    width, height = image.size
    scale = SIDE / max(width, height)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale < 1:
        image = image.resize(shown, Image.Resampling.BILINEAR)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    content = base64.b64encode(sink.getvalue()).decode("ascii")
    return Markup(
        '<img src="data:image/png;base64,{}" width="{}" height="{}" alt="{} x {} pixels" style="image-rendering: {}">'
    ).format(content, *shown, width, height, "pixelated" if scale > 1 else "auto")
