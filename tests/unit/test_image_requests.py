"""Images in requests: base64, plain bytes, forms, and invalid requests."""

import base64
import io

import pytest
from PIL import Image

from cluster.errors import RequestError
from trainer.tasks.images.requests import images_of_body, read_image, read_images

MAX_PIXELS = 10_000


def png(width=4, height=3):
    sink = io.BytesIO()
    Image.new("L", (width, height), 9).save(sink, "PNG")
    return sink.getvalue()


PNG = png()
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "value",
    [
        TEXT,
        PNG,
        {"image": TEXT},
        f"data:image/png;base64,{TEXT}",
        f"DATA:;base64,{TEXT}",
        f"{TEXT[:40]}\n{TEXT[40:]}\r\n",
    ],
)
def test_every_form_of_an_image(value):
    assert read_image(value, "inputs[0]", MAX_PIXELS) == (PNG, 12)


@pytest.mark.parametrize(
    ("value", "status", "code", "message"),
    [
        (7, 422, "wrong_type", "inputs[3] is a number"),
        (None, 422, "wrong_type", "inputs[3] is null"),
        ([TEXT], 422, "wrong_type", "inputs[3] is a list"),
        ({"image": 7}, 422, "wrong_type", "inputs[3].image is a number"),
        ({"imge": TEXT}, 422, "unknown_key", "did you mean 'image'?"),
        ({}, 422, "missing_key", "inputs[3] has no 'image'"),
        ("", 422, "empty_input", "inputs[3] is empty"),
        (b"", 422, "empty_input", "inputs[3] is empty"),
        ("data:image/png;base64,", 422, "empty_input", "inputs[3] is empty"),
        ("not base64!", 422, "invalid_base64", "inputs[3] is not base64"),
        (TEXT[:-1], 422, "invalid_base64", "inputs[3] is not base64"),
        ("ü", 422, "invalid_base64", "inputs[3] is not base64"),
        ("https://example.com/a.png", 422, "invalid_base64", "send the image itself"),
        ("data:image/png,abc", 422, "invalid_base64", "is not base64"),
        (base64.b64encode(b"a text").decode(), 422, "not_an_image", "inputs[3]: not an image in a known format"),
        (b"<svg></svg>", 422, "not_an_image", "SVG"),
        (png(101, 100), 413, "image_too_large", "inputs[3]: image over 10,000 pixels"),
    ],
)
def test_invalid_images_are_refused(value, status, code, message):
    with pytest.raises(RequestError) as caught:
        read_image(value, "inputs[3]", MAX_PIXELS)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert message in str(caught.value)


def form(*parts, boundary="b0und", end="--\r\n"):
    body = b"".join(
        b"--" + boundary.encode() + b"\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts
    )
    return body + b"--" + boundary.encode() + end.encode()


FILE = 'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png'


def test_bodies_that_are_not_json():
    assert images_of_body(b"x", "image/png") == [b"x"]
    assert images_of_body(b"x", "application/octet-stream") == [b"x"]
    assert images_of_body(b"{}", "application/json") is None and images_of_body(b"{}", "") is None
    curl_default = "application/x-www-form-urlencoded"
    assert images_of_body(PNG, curl_default) == [PNG] and images_of_body(b' {"inputs": []}', curl_default) is None
    tricky = b"\r\n--b0un\r\n\r\n--\r\n" + bytes(range(256))
    first = (FILE, tricky)
    second = ('Content-Disposition: form-data; name="more"; filename=""', PNG)
    for kind in ("multipart/form-data; boundary=b0und", 'Multipart/Form-Data; boundary="b0und"; charset=utf-8'):
        assert images_of_body(form(first, second), kind) == [tricky, PNG]
    assert images_of_body(b"preamble\r\n" + form(first) + b"epilogue", "multipart/form-data; boundary=b0und") == [
        tricky
    ]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "image/png", 400, "no_body"),
        (form((FILE, PNG)), "multipart/form-data", 400, "invalid_form"),
        (form((FILE, PNG)), "multipart/form-data; boundary=other", 400, "invalid_form"),
        (form((FILE, PNG), end="\r\n"), "multipart/form-data; boundary=b0und", 400, "invalid_form"),
        (b"", "multipart/form-data; boundary=b0und", 400, "invalid_form"),
        (b"--b0und\r\nno head\r\n--b0und--", "multipart/form-data; boundary=b0und", 400, "invalid_form"),
        (form(), "multipart/form-data; boundary=b0und", 422, "no_inputs"),
        (form(('Content-Disposition: form-data; name="image"', b"path")), "multipart/form-data; boundary=b0und", 422, "not_a_file"),
    ],
)  # fmt: skip
def test_broken_bodies(body, kind, status, code):
    with pytest.raises(RequestError) as caught:
        images_of_body(body, kind)
    assert (caught.value.status, caught.value.code) == (status, code)


def test_all_images_of_a_request_together_may_have_four_times_the_pixels_of_one():
    assert (
        read_images([png(50, 100), {"image": base64.b64encode(png(50, 100)).decode()}], MAX_PIXELS)
        == [png(50, 100)] * 2
    )
    with pytest.raises(
        RequestError, match=r"inputs\[8\]: the images up to this input have 40,012 pixels .* over the limit of 40,000"
    ) as caught:
        read_images([*[png(50, 100)] * 8, PNG, b"never read"], MAX_PIXELS)
    assert (caught.value.status, caught.value.code) == (413, "image_too_large")
