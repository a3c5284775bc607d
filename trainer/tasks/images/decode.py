"""Turn the bytes of an image file into pixels of one size, in the same way for training rows and requests.

Only the first frame is used, rotated by its EXIF orientation. Transparent pixels are drawn on black, and 16-bit pixels
are reduced to 8 bits. The settings are `data.image` in trainer/spec/data.py.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, features

from trainer.tasks.images.png_chunks import without_long_texts

#: The formats that are read, AVIF where Pillow was built with it. Pillow reads more, but they are rare, and each parser is
#: one more target of hostile bytes.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", *(("AVIF",) if features.check("avif") else ()))

# The first bytes of images in other formats -> what they are. Those of HEIC and AVIF follow the length of a box.
_OTHER_FORMATS = (
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop image"),
    (b"\0\0\1\0", "an icon"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the image itself"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "a HEIC image"),
    **({} if "AVIF" in FORMATS else dict.fromkeys((b"avif", b"avis"), "an AVIF image, which this Pillow cannot read")),
}
_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

# raymill checks its own limit before it decodes anything.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnusableImage(Exception):
    """An image that cannot be used. The text is the reason; all images with the same problem have the same text."""


class ImageTooLarge(UnusableImage):
    """An image with too many pixels."""


class ImageForm(NamedTuple):
    """The common size and format of all images of one model: the parameters of the contract's step `image`."""

    height: int
    width: int
    mode: str
    """rgb or gray."""
    resize: str
    """crop, stretch or pad."""
    short: int
    """For `crop`: the length in pixels of the shorter side before the middle of height x width is cut out."""
    resample: str
    """bilinear, bicubic, lanczos or nearest."""
    max_pixels: int

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> ImageForm:
        """Return the form that a contract's step describes; ignores the step's other parameters."""
        return cls(**{name: params[name] for name in cls._fields})

    @property
    def channels(self) -> int:
        """The number of channels: 3 or 1."""
        return 3 if self.mode == "rgb" else 1


def open_image(raw: bytes, max_pixels: int) -> Image.Image:
    """Return an image after reading only its header. Raises `UnusableImage`."""
    try:
        image = Image.open(io.BytesIO(without_long_texts(raw)), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(max_pixels) from None
    except Exception:  # Pillow's own errors, and for damaged bytes whatever its parsers raise
        raise UnusableImage(_why_unreadable(raw)) from None
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels)
    return image


def decode_image(raw: bytes, form: ImageForm) -> np.ndarray:
    """Return the pixels as uint8, shape (height, width, channels). Raises `UnusableImage`."""
    return _pixels(_resize(decode_upright(open_image(raw, form.max_pixels), form.mode), form))


def decode_upright(image: Image.Image, mode: str) -> Image.Image:
    """Return an image from `open_image`, decoded, upright and in 8 bits. Raises `UnusableImage`.

    Its Pillow mode is RGB for the `mode` rgb, and L for gray.
    """
    try:
        image.load()
        return _convert_mode(_rotate_by_exif(image), mode)
    except UnusableImage:
        raise
    except Exception:
        raise UnusableImage("truncated or damaged image") from None


def _too_large(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(f"image over {max_pixels:,} pixels")


def _why_unreadable(raw: bytes) -> str:
    start = raw[:512].lstrip()
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG drawing, not an image of pixels"
    kind = next((kind for sign, kind in _OTHER_FORMATS if raw.startswith(sign)), None)
    if start[:14].lower().startswith((b"<!doctype html", b"<html")):
        kind = "a page of HTML"
    if raw[4:8] == b"ftyp":
        kind = _BRANDS.get(raw[8:12])
    return f"not an image in a known format ({', '.join(FORMATS)})" + (f": it is {kind}" if kind else "")


def _rotate_by_exif(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block; the pixels are good
        return image


def _convert_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in 8 bits as RGB or L."""
    if image.mode == "F":
        raise UnusableImage("image of floating point numbers")
    if image.mode.startswith("I"):  # Pillow's own conversion clips at 255
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        black = Image.new("RGBA", with_alpha.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, with_alpha)
    if mode == "rgb":
        return image.convert("RGB")
    return image if image.mode == "L" else image.convert("RGB").convert("L")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Return uint8 for 16-bit values, which Pillow stores in 16 or 32 bits."""
    scaled: np.ndarray = ((np.clip(values, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)
    return scaled


def _resize(image: Image.Image, form: ImageForm) -> Image.Image:
    size = (form.width, form.height)
    resample = _RESAMPLE[form.resample]
    if form.resize == "stretch":
        return image if image.size == size else image.resize(size, resample)
    if form.resize == "pad":
        scale = min(form.width / image.width, form.height / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        padded = Image.new(image.mode, size)
        padded.paste(image.resize(inner, resample), ((form.width - inner[0]) // 2, (form.height - inner[1]) // 2))
        return padded
    return _crop(image, form, resample)


def _crop(image: Image.Image, form: ImageForm, resample: Image.Resampling) -> Image.Image:
    """Resize the shorter side and cut out the middle in one call.

    In two calls, a strip of 1 x 50,000,000 pixels would be enlarged before it is cut.
    """
    shorter = min(image.size)
    full_width, full_height = (int(form.short * side / shorter) for side in image.size)
    left, top = (full_width - form.width) // 2, (full_height - form.height) // 2
    per_x, per_y = image.width / full_width, image.height / full_height
    box = (left * per_x, top * per_y, (left + form.width) * per_x, (top + form.height) * per_y)
    # Rounding may put the box slightly beyond the edge, which Pillow refuses.
    right, bottom = min(box[2], image.width), min(box[3], image.height)
    return image.resize((form.width, form.height), resample, box=(box[0], box[1], right, bottom))


def _pixels(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
