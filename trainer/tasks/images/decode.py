"""Bytes of an image file to pixels of one size: the same for a training row and a request.

The first frame is taken, turned as its EXIF orientation says; transparent pixels stand on black; 16 bits become 8.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

#: What may be read. Others that Pillow knows are rare, and each is a further parser that strangers can send bytes to.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
             "lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}  # fmt: skip

# Ours is looked at before anything is decoded, and says how many pixels are too many.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Unusable(Exception):
    """An image that cannot be used; the text is the reason, the same for all images that fail alike."""


class TooLarge(Unusable):
    """An image of too many pixels."""


class Form(NamedTuple):
    """What all images of one model are made: the parameters of the contract's step `image`."""

    height: int
    width: int
    mode: str
    """rgb or grey."""
    resize: str
    """crop, stretch or pad."""
    short: int
    """`crop`: what the shorter side is made before the middle of height x width is cut out, pixels."""
    resample: str
    """bilinear, bicubic, lanczos or nearest."""
    max_pixels: int

    @classmethod
    def of(cls, params: dict[str, Any]) -> Form:
        """Return the form that a contract's step describes; what else the step holds does not matter here."""
        return cls(**{name: params[name] for name in cls._fields})

    @property
    def channels(self) -> int:
        """Numbers of one pixel."""
        return 3 if self.mode == "rgb" else 1


def opened(raw: bytes, max_pixels: int) -> Image.Image:
    """Return an image of which the header was read and nothing decoded yet. Raises `Unusable`."""
    try:
        image = Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(max_pixels) from None
    except Exception:  # Pillow raises its own kinds, and of damaged bytes whatever its parsers stumble over
        raise Unusable(_not_read(raw)) from None
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels)
    return image


def decode(raw: bytes, form: Form) -> np.ndarray:
    """Return the pixels as uint8, shape (height, width, channels). Raises `Unusable`."""
    return _pixels(_fitted(upright_in_8_bits(opened(raw, form.max_pixels), form.mode), form))


def upright_in_8_bits(image: Image.Image, mode: str) -> Image.Image:
    """Return an image of `opened` decoded, as RGB or L (`mode` rgb or grey). Raises `Unusable`."""
    try:
        image.load()
        return _in_mode(_upright(image), mode)
    except Unusable:
        raise
    except Exception:
        raise Unusable("truncated or damaged image") from None


def _too_large(max_pixels: int) -> TooLarge:
    return TooLarge(f"image over {max_pixels:,} pixels")


def _not_read(raw: bytes) -> str:
    start = raw[:512].lstrip()
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG drawing, not an image of pixels"
    return f"no image that can be read ({', '.join(FORMATS)})"


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block; the pixels are good
        return image


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in 8 bits as RGB or L."""
    if image.mode == "F":
        raise Unusable("image of floating point numbers")
    if image.mode.startswith("I"):  # Pillow's own conversion cuts at 255
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, seen)
    if mode == "rgb":
        return image.convert("RGB")
    return image if image.mode == "L" else image.convert("RGB").convert("L")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Of 16 bits, which Pillow keeps in 16 or 32."""
    found: np.ndarray = ((np.clip(values, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)
    return found


def _fitted(image: Image.Image, form: Form) -> Image.Image:
    size = (form.width, form.height)
    how = _RESAMPLE[form.resample]
    if form.resize == "stretch":
        return image if image.size == size else image.resize(size, how)
    if form.resize == "pad":
        scale = min(form.width / image.width, form.height / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        padded = Image.new(image.mode, size)
        padded.paste(image.resize(inner, how), ((form.width - inner[0]) // 2, (form.height - inner[1]) // 2))
        return padded
    return _cropped(image, form, how)


def _cropped(image: Image.Image, form: Form, how: Image.Resampling) -> Image.Image:
    """Fit the shorter side and cut out the middle, in one go: a strip of 1 x 50,000,000 must not be blown up first."""
    shorter = min(image.size)
    whole_width, whole_height = (int(form.short * side / shorter) for side in image.size)
    left, top = (whole_width - form.width) // 2, (whole_height - form.height) // 2
    per_x, per_y = image.width / whole_width, image.height / whole_height
    box = (left * per_x, top * per_y, (left + form.width) * per_x, (top + form.height) * per_y)
    # The sums above may end a rounding beyond the edge, which Pillow refuses.
    right, bottom = min(box[2], image.width), min(box[3], image.height)
    return image.resize((form.width, form.height), how, box=(box[0], box[1], right, bottom))


def _pixels(image: Image.Image) -> np.ndarray:
    found = np.asarray(image, dtype=np.uint8)
    return found[:, :, None] if found.ndim == 2 else found
