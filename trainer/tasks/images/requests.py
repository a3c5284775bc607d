"""Images in requests: base64 in JSON, plain bytes, forms. Invalid requests raise `RequestError`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from email.message import Message
from email.parser import BytesHeaderParser
from typing import NamedTuple

from cluster.errors import RequestError, suggest
from cluster.text import json_kind
from trainer.tasks.images.decode import ImageTooLarge, UnusableImage, open_image

_KEY = "image"
# Limit on the pixels of one request's images together, as a multiple of `max_pixels`.
_MAX_FULL_IMAGES = 4
_SHAPE = f'an image in base64, or an object {{"{_KEY}": "the base64"}}'


class SentImage(NamedTuple):
    """One image of a request."""

    raw: bytes
    pixels: int


def read_images(inputs: Sequence[object], max_pixels: int) -> list[bytes]:
    """Return the bytes of each image of a request. Each input has a form that `read_image` takes.

    All images together may have at most four times `max_pixels`: a file of a few bytes can decode to millions of
    pixels. Decoding 50 million takes 0.4 s, and meanwhile no other request is prepared. Raises `RequestError` naming
    the input.
    """
    raws = []
    pixels, limit = 0, _MAX_FULL_IMAGES * max_pixels
    for number, value in enumerate(inputs):
        where = f"inputs[{number}]"
        image = read_image(value, where, max_pixels)
        pixels += image.pixels
        if pixels > limit:
            raise RequestError(
                413,
                "image_too_large",
                f"{where}: the images up to this input have {pixels:,} pixels together, over the limit of {limit:,}; "
                "make them smaller, or send them in several requests",
            )
        raws.append(image.raw)
    return raws


def read_image(value: object, where: str, max_pixels: int) -> SentImage:
    """Return one input: base64 as a text, as a `data:` URL or under the key `image`, or the bytes themselves.

    Reads only the image's header. Raises `RequestError`: 413 for too many pixels, 422 if it is not an image.
    """
    if isinstance(value, Mapping):
        for key in value:
            if key != _KEY:
                shown = str(key)[:80]
                raise RequestError(422, "unknown_key", f"{where}: unknown key {shown!a}; {suggest(shown, [_KEY])}")
        if _KEY not in value:
            raise RequestError(422, "missing_key", f"{where} has no '{_KEY}'; each input must be {_SHAPE}")
        where, value = f"{where}.{_KEY}", value[_KEY]
    raw = value if isinstance(value, bytes) else _decode_base64(value, where)
    if not raw:
        raise RequestError(422, "empty_input", f"{where} is empty; remove it or give an image")
    try:
        image = open_image(raw, max_pixels)
    except ImageTooLarge as error:
        raise RequestError(413, "image_too_large", f"{where}: {error}; make it smaller") from None
    except UnusableImage as error:
        raise RequestError(422, "not_an_image", f"{where}: {error}") from None
    return SentImage(raw, image.width * image.height)


def images_of_body(body: bytes, content_type: str) -> list[bytes] | None:
    """Return the images of a body that is not JSON, or None for an unknown `content_type`."""
    header = Message()
    header["content-type"] = content_type
    kind = header.get_content_type()
    if kind == "multipart/form-data":
        return _files_of_form(body, header.get_boundary())
    # By default, `curl --data-binary @photo.jpg` sends this content type, for JSON bodies too.
    is_curl_default = kind == "application/x-www-form-urlencoded" and not body.lstrip().startswith((b"{", b"["))
    if is_curl_default or kind == "application/octet-stream" or kind.startswith("image/"):
        if not body:
            raise RequestError(400, "no_body", "the body is empty; send the bytes of an image")
        return [body]
    return None


def _decode_base64(value: object, where: str) -> bytes:
    if not isinstance(value, str):
        raise RequestError(422, "wrong_type", f"{where} is {json_kind(value)}; each input must be {_SHAPE}")
    text = value
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise RequestError(422, "invalid_base64", f"{where} is a data: URL that is not base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = "it is an address; send the image itself" if text[:4].lower() == "http" else str(error)
        raise RequestError(422, "invalid_base64", f"{where} is not base64: {reason}") from None


def _files_of_form(body: bytes, boundary: str | None) -> list[bytes]:
    """Return the files of a multipart form, in order."""
    incomplete = RequestError(400, "invalid_form", "the multipart form is incomplete: its boundary does not match")
    if not boundary:
        raise RequestError(400, "invalid_form", "the content type names no boundary")
    delimiter = b"\r\n--" + boundary.encode("utf-8", "surrogateescape")
    _, *parts = (b"\r\n" + body).split(delimiter)
    if not parts or not parts[-1].startswith(b"--"):
        raise incomplete
    files = []
    for part in parts[:-1]:
        head, blank_line, content = part.partition(b"\r\n\r\n")
        if not blank_line:
            raise incomplete
        header = BytesHeaderParser().parsebytes(head.lstrip())
        if header.get_filename() is None and header.get_content_maintype() != "image":
            name = str(header.get_param("name", "", "content-disposition"))
            raise RequestError(
                422,
                "not_a_file",
                f"the form's field {name[:80]!a} is not a file; send each image as a file, for example "
                "-F image=@photo.png",
            )
        files.append(content)
    if not files:
        raise RequestError(422, "no_inputs", "the form has no file; send at least one image")
    return files
