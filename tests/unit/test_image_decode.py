"""From the bytes of image files to pixels of one size, and files that cannot be read."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trainer.tasks.images.decode import (
    FORMATS,
    ImageForm,
    ImageTooLarge,
    UnusableImage,
    decode_image,
    decode_upright,
    open_image,
)
from trainer.tasks.images.png_chunks import without_long_texts

FORM = ImageForm(16, 16, "rgb", "stretch", 16, "bilinear", 1_000_000)


def encode(image, kind="PNG", **options):
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def plain(mode, color, size=(20, 10)):
    return Image.new(mode, size, color)


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind):
    pixels = decode_image(encode(plain("RGB", (200, 100, 50)), kind), FORM)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels[8, 8].astype(int) - (200, 100, 50)).max() < 6


def test_every_kind_of_pixel_becomes_8_bits():
    deep = Image.fromarray(np.full((10, 20), 0x8080, np.uint16))
    palette = plain("P", 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    for image, kind, color in [
        (deep, "PNG", 128),
        (deep, "TIFF", 128),
        (plain("L", 7), "PNG", 7),
        (plain("1", 1), "PNG", 255),
        (palette, "PNG", (10, 20, 30)),
        (plain("CMYK", (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (plain("RGBA", (200, 100, 50, 0)), "PNG", 0),  # transparent pixels are drawn on black
        (plain("LA", (200, 255)), "PNG", 200),
    ]:
        pixels = decode_image(encode(image, kind), FORM)
        assert (pixels == np.array(color)).all(), (image.mode, kind, pixels[0, 0])
    with pytest.raises(UnusableImage, match="floating point"):
        decode_image(encode(plain("F", 0.5), "TIFF"), FORM)


def test_a_transparent_palette_is_drawn_on_black():
    image = plain("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (decode_image(encode(image, transparency=1), FORM) == 0).all()


def test_gray_has_one_channel():
    assert decode_image(encode(plain("RGB", (255, 0, 0))), FORM._replace(mode="gray"))[0, 0].tolist() == [76]


def test_the_first_frame_of_an_animation_is_taken():
    frames = [plain("RGB", (255, 0, 0)), plain("RGB", (0, 0, 255))]
    raw = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(raw, FORM)[0, 0].tolist() == [255, 0, 0]


def test_an_image_is_rotated_by_its_exif():
    image = noise(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    rotated = decode_image(encode(image, "PNG", exif=exif), FORM)
    assert (rotated == decode_image(encode(image.rotate(-90, expand=True)), FORM)).all()
    broken = decode_image(encode(image, "PNG", exif=b"Exif\0\0no exif at all"), FORM)
    assert (broken == decode_image(encode(image), FORM)).all()


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (100, 100), (33, 640)])
def test_crop_is_fitting_the_shorter_side_and_cutting_the_middle(size):
    image = noise(*size)
    pixels = decode_image(encode(image), ImageForm(48, 48, "rgb", "crop", 64, "bilinear", 10**6))
    width, height = (int(64 * side / min(size)) for side in size)
    left, top = (width - 48) // 2, (height - 48) // 2
    expected = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 48, top + 48))
    assert np.abs(pixels.astype(int) - np.asarray(expected)).max() <= 2


def test_pad_fits_the_longer_side_and_fills_with_black():
    pixels = decode_image(encode(plain("RGB", (255, 255, 255), (20, 10))), FORM._replace(resize="pad"))
    assert pixels[:4].max() == 0 and pixels[4:12].min() == 255 and pixels[12:].max() == 0


def test_a_long_strip_takes_no_memory():
    strip = encode(plain("L", 9, (1, 60_000)))
    for resize in ("crop", "stretch", "pad"):
        assert decode_image(strip, FORM._replace(resize=resize)).shape == (16, 16, 3)


def bomb(side=30_000):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_pixels_are_counted_before_anything_is_decoded():
    for side in (30_000, 10_000):  # Pillow itself refuses the first and warns of the second
        with pytest.raises(ImageTooLarge, match="image over 1,000,000 pixels"):
            open_image(bomb(side), 1_000_000)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not an image in a known format"),
        (b"just text, renamed", "not an image in a known format"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7", "not an image in a known format"),
        (encode(noise(40, 40))[:-200], "truncated or damaged"),
        (encode(noise(40, 40), "JPEG")[:300], "truncated or damaged|not an image"),
        (encode(noise(40, 40))[:20], "not an image in a known format"),
        (encode(noise(40, 40), "PPM"), "not an image in a known format"),  # Pillow can read it, raymill does not
    ],
)
def test_unusable_bytes_have_a_reason(raw, reason):
    with pytest.raises(UnusableImage, match=reason):
        decode_image(raw, FORM)


def test_any_damage_gives_pixels_or_a_reason():
    """Randomly changed bytes give pixels or a reason, never another error."""
    rng = np.random.default_rng(3)
    for kind in FORMATS:
        good = encode(noise(40, 40), kind)
        for _ in range(60):
            raw = bytearray(good)
            for position in rng.integers(0, len(raw), 5):
                raw[position] = rng.integers(0, 256)
            with contextlib.suppress(UnusableImage):
                assert decode_image(bytes(raw[: rng.integers(1, len(raw) + 1)]), FORM).shape == (16, 16, 3)


def text_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.slow
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("megabytes", [2, 100])
def test_long_texts_and_profiles_beside_the_pixels(megabytes, is_last):
    raw = encode(plain("RGB", (200, 100, 50)))
    packed = zlib.compress(b"prompt! " * (megabytes << 17))
    chunks = {
        b"zTXt": b"parameters\0\0" + packed,
        b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + packed,
        b"tEXt": b"history\0" + b"x" * (megabytes << 20),
        b"iCCP": b"profile\0\0" + packed,
    }
    expected = decode_image(raw, FORM)
    cut = raw.index(b"IEND") - 4 if is_last else 33  # before the end, or after the header
    for kind, content in chunks.items():
        if kind == b"iCCP" and is_last:
            continue
        long = raw[:cut] + text_chunk(kind, content) + raw[cut:]
        assert (decode_image(long, FORM) == expected).all(), kind
    assert without_long_texts(raw) is raw and without_long_texts(b"GIF89a") == b"GIF89a"
    short = raw[:33] + text_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"short")) + raw[33:]
    assert without_long_texts(short) is short
    for damaged in (short[:40], raw[:33] + text_chunk(b"zTXt", b"a\0\0no zlib") + raw[33:], raw[:20]):
        assert without_long_texts(damaged) == damaged


def test_an_orientation_beside_a_long_text_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encode(plain("RGB", (9, 9, 9), size=(20, 10)), exif=exif)
    long = raw[:33] + text_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (4 << 20))) + raw[33:]
    for content in (raw, long):
        assert decode_upright(open_image(content, 10_000), "rgb").size == (10, 20)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x18ftypheic", "a HEIC image"),
        (b"\xff\x0a", "a JPEG XL image"),
        (b"8BPS\0\1", "a Photoshop image"),
        (b"\n<!DOCTYPE html><html>", "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"<svg xmlns='x'>", "an SVG drawing"),
        (b"hello", "not an image in a known format"),
    ],
)
def test_what_a_file_is_that_is_no_image(start, kind):
    with pytest.raises(UnusableImage, match=kind):
        decode_image(start + bytes(200), FORM)


def test_the_first_frame_of_animations_and_of_phones_with_two_pictures():
    frames = [plain("RGB", color) for color in ((200, 100, 50), (0, 0, 0))]
    for kind, options in [
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("MPO", {"quality": 95}),
    ]:
        raw = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.abs(decode_image(raw, FORM)[8, 8].astype(int) - (200, 100, 50)).max() < 6, kind


def test_jpegs_of_printers():
    for color, expected in [((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0))]:
        raw = encode(plain("CMYK", color), "JPEG", quality=95)
        assert np.abs(decode_image(raw, FORM)[8, 8].astype(int) - expected).max() < 8
