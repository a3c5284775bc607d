"""Bytes of image files to pixels of one size, and what cannot be read."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trainer.tasks.images.decode import FORMATS, Form, TooLarge, Unusable, decode, opened

FORM = Form(16, 16, "rgb", "stretch", 16, "bilinear", 1_000_000)


def encoded(image, kind="PNG", **options):
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def plain(mode, colour, size=(20, 10)):
    return Image.new(mode, size, colour)


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind):
    found = decode(encoded(plain("RGB", (200, 100, 50)), kind), FORM)
    assert found.shape == (16, 16, 3) and found.dtype == np.uint8
    assert np.abs(found[8, 8].astype(int) - (200, 100, 50)).max() < 6


def test_every_kind_of_pixel_becomes_8_bits():
    deep = Image.fromarray(np.full((10, 20), 0x8080, np.uint16))
    palette = plain("P", 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    for image, kind, colour in [
        (deep, "PNG", 128),
        (deep, "TIFF", 128),
        (plain("L", 7), "PNG", 7),
        (plain("1", 1), "PNG", 255),
        (palette, "PNG", (10, 20, 30)),
        (plain("CMYK", (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (plain("RGBA", (200, 100, 50, 0)), "PNG", 0),  # transparent stands on black
        (plain("LA", (200, 255)), "PNG", 200),
    ]:
        found = decode(encoded(image, kind), FORM)
        assert (found == np.array(colour)).all(), (image.mode, kind, found[0, 0])
    with pytest.raises(Unusable, match="floating point"):
        decode(encoded(plain("F", 0.5), "TIFF"), FORM)


def test_a_transparent_palette_stands_on_black():
    image = plain("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (decode(encoded(image, transparency=1), FORM) == 0).all()


def test_grey_has_one_channel():
    assert decode(encoded(plain("RGB", (255, 0, 0))), FORM._replace(mode="grey"))[0, 0].tolist() == [76]


def test_the_first_frame_of_an_animation_is_taken():
    frames = [plain("RGB", (255, 0, 0)), plain("RGB", (0, 0, 255))]
    raw = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(raw, FORM)[0, 0].tolist() == [255, 0, 0]


def test_an_image_is_turned_as_its_exif_says():
    image = noise(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    turned = decode(encoded(image, "PNG", exif=exif), FORM)
    assert (turned == decode(encoded(image.rotate(-90, expand=True)), FORM)).all()
    broken = decode(encoded(image, "PNG", exif=b"Exif\0\0no exif at all"), FORM)
    assert (broken == decode(encoded(image), FORM)).all()


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (100, 100), (33, 640)])
def test_crop_is_fitting_the_shorter_side_and_cutting_the_middle(size):
    image = noise(*size)
    found = decode(encoded(image), Form(48, 48, "rgb", "crop", 64, "bilinear", 10**6))
    width, height = (int(64 * side / min(size)) for side in size)
    left, top = (width - 48) // 2, (height - 48) // 2
    whole = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 48, top + 48))
    assert np.abs(found.astype(int) - np.asarray(whole)).max() <= 2


def test_pad_fits_the_longer_side_and_fills_with_black():
    found = decode(encoded(plain("RGB", (255, 255, 255), (20, 10))), FORM._replace(resize="pad"))
    assert found[:4].max() == 0 and found[4:12].min() == 255 and found[12:].max() == 0


def test_a_long_strip_takes_no_memory():
    strip = encoded(plain("L", 9, (1, 60_000)))
    for resize in ("crop", "stretch", "pad"):
        assert decode(strip, FORM._replace(resize=resize)).shape == (16, 16, 3)


def bomb(side=30_000):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_pixels_are_counted_before_anything_is_decoded():
    for side in (30_000, 10_000):  # Pillow itself refuses the first and warns of the second
        with pytest.raises(TooLarge, match="image over 1,000,000 pixels"):
            opened(bomb(side), 1_000_000)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no image that can be read"),
        (b"just text, renamed", "no image that can be read"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7", "no image that can be read"),
        (encoded(noise(40, 40))[:-200], "truncated or damaged"),
        (encoded(noise(40, 40), "JPEG")[:300], "truncated or damaged|no image"),
        (encoded(noise(40, 40))[:20], "no image that can be read"),
        (encoded(noise(40, 40), "PPM"), "no image that can be read"),  # Pillow can, we do not want to
    ],
)
def test_what_is_no_image_has_a_reason(raw, reason):
    with pytest.raises(Unusable, match=reason):
        decode(raw, FORM)


def test_any_damage_is_a_reason():
    """Bytes changed at random: pixels or a reason, never another error."""
    draw = np.random.default_rng(3)
    for kind in FORMATS:
        good = encoded(noise(40, 40), kind)
        for _ in range(60):
            raw = bytearray(good)
            for place in draw.integers(0, len(raw), 5):
                raw[place] = draw.integers(0, 256)
            with contextlib.suppress(Unusable):
                assert decode(bytes(raw[: draw.integers(1, len(raw) + 1)]), FORM).shape == (16, 16, 3)
