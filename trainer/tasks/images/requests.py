"""Images in requests: base64 in JSON, plain bytes, forms. Plain functions; whatever is wrong ends in a `RequestError`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from email.message import Message
from email.parser import BytesHeaderParser
from typing import NamedTuple

from cluster.errors import RequestError, nearest
from cluster.text import json_kind
from trainer.tasks.images.decode import TooLarge, Unusable, opened

_KEY = "image"
# How often `max_pixels` all images of a request may have.
_TOGETHER = 4
_SHAPE = f'an image in base64, or {{"{_KEY}": it}}'


class Sent(NamedTuple):
    """One image of a request."""

    raw: bytes
    pixels: int


def images_of(inputs: Sequence[object], max_pixels: int) -> list[bytes]:
    """Return the bytes of a request's inputs, each as `image_of` takes it.

    All together may have four times `max_pixels`: a file of a few bytes can stand for millions of pixels, and decoding 50
    million takes 0.4 s, in which no other request is prepared. Raises `RequestError`, naming the place.
    """
    raws = []
    pixels, most = 0, _TOGETHER * max_pixels
    for place, given in enumerate(inputs):
        here = f"inputs[{place}]"
        sent = image_of(given, here, max_pixels)
        pixels += sent.pixels
        if pixels > most:
            raise RequestError(
                413,
                "image_too_large",
                f"{here}: the images up to this one have {pixels:,} pixels together, over {most:,}; "
                "make them smaller, or send them in several requests",
            )
        raws.append(sent.raw)
    return raws


def image_of(given: object, here: str, max_pixels: int) -> Sent:
    """Return one input: base64 as a text, as a `data:` URL or under `image`, or the bytes themselves.

    Only its header is looked at. Raises `RequestError`: 413 for too many pixels, 422 for what is no image.
    """
    if isinstance(given, Mapping):
        for key in given:
            if key != _KEY:
                raise RequestError(
                    422, "unknown_key", f"{here}: unknown key {str(key)[:80]!a}; {nearest(str(key)[:80], [_KEY])}"
                )
        if _KEY not in given:
            raise RequestError(422, "missing_key", f"{here} has no '{_KEY}'; each must be {_SHAPE}")
        here, given = f"{here}.{_KEY}", given[_KEY]
    raw = given if isinstance(given, bytes) else _decoded(given, here)
    if not raw:
        raise RequestError(422, "empty_input", f"{here} is empty; take it out or give an image")
    try:
        image = opened(raw, max_pixels)
    except TooLarge as error:
        raise RequestError(413, "image_too_large", f"{here}: {error}; make it smaller") from None
    except Unusable as error:
        raise RequestError(422, "not_an_image", f"{here}: {error}") from None
    return Sent(raw, image.width * image.height)


def bodies(body: bytes, content_type: str) -> list[bytes] | None:
    """Return the images of a body that is no JSON, None for a type that is not known here."""
    header = Message()
    header["content-type"] = content_type
    kind = header.get_content_type()
    if kind == "multipart/form-data":
        return _of_form(body, header.get_boundary())
    # What `curl --data-binary @photo.jpg` says where it is told no type; it says the same of JSON.
    untold = kind == "application/x-www-form-urlencoded" and not body.lstrip().startswith((b"{", b"["))
    if untold or kind == "application/octet-stream" or kind.startswith("image/"):
        if not body:
            raise RequestError(400, "no_body", "the body is empty; send the bytes of an image")
        return [body]
    return None


def _decoded(given: object, here: str) -> bytes:
    if not isinstance(given, str):
        raise RequestError(422, "wrong_type", f"{here} is {json_kind(given)}; each must be {_SHAPE}")
    text = given
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise RequestError(422, "invalid_base64", f"{here} is a data: URL that is not base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        shown = "it is an address; send the image itself" if text[:4].lower() == "http" else str(error)
        raise RequestError(422, "invalid_base64", f"{here} is not base64: {shown}") from None


def _of_form(body: bytes, boundary: str | None) -> list[bytes]:
    """Return the files of a multipart form, in order."""
    broken = RequestError(400, "invalid_form", "the body is no whole multipart form: its boundary does not match")
    if not boundary:
        raise RequestError(400, "invalid_form", "the content type names no boundary")
    mark = b"\r\n--" + boundary.encode("utf-8", "surrogateescape")
    _, *parts = (b"\r\n" + body).split(mark)
    if not parts or not parts[-1].startswith(b"--"):
        raise broken
    found = []
    for part in parts[:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        if not blank:
            raise broken
        header = BytesHeaderParser().parsebytes(head.lstrip())
        if header.get_filename() is None and header.get_content_maintype() != "image":
            name = str(header.get_param("name", "", "content-disposition"))
            raise RequestError(
                422,
                "not_a_file",
                f"the form's field {name[:80]!a} is no file; send each image as a file, as -F image=@photo.png",
            )
        found.append(content)
    if not found:
        raise RequestError(422, "no_inputs", "the form holds no file; send at least one image")
    return found
