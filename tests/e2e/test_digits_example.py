"""examples/digits, run as its README says, and its endpoint: JSON, plain bytes, forms, and rejected requests."""

import base64
import json
import shutil
import subprocess
import sys
import zlib

import httpx
import pytest

from cluster.ports import free_port
from support.commands import ROOT, RunningCommand, run_raymill

MIN_ACCURACY = 0.95  # 0.99 with all 15 epochs


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    for name in ("make_images.py", "run.yaml"):
        shutil.copy(ROOT / "examples/digits" / name, folder)
    done = subprocess.run([sys.executable, folder / "make_images.py"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1438 images in ")
    shorter = ["--set", "train.epochs=6"]
    done = run_raymill("run", folder / "run.yaml", "--set", f"storage={folder / 'storage'}", *shorter, "--json")
    assert done.code == 0, done
    outcome = json.loads(done.stdout)
    assert outcome["metrics"]["test"]["accuracy"] >= MIN_ACCURACY
    assert outcome["promoted"]
    return folder


@pytest.fixture(scope="module")
def url(example):
    arguments = ["serve", "digits", "--storage", example / "storage", "--port", free_port(), "--engine", "native"]
    server = RunningCommand("-m", "raymill", *arguments)
    try:
        yield server.wait_for_line("listening on").split()[-1]
    finally:
        server.terminate()


@pytest.fixture(scope="module")
def three(example):
    return sorted((example / "images/test/3").iterdir())[0].read_bytes()


@pytest.fixture(scope="module")
def seven(example):
    return sorted((example / "images/test/7").iterdir())[0].read_bytes()


def post(url, **request):
    """Return the predicted labels, or the status and the error code."""
    answer = httpx.post(f"{url}/predict", timeout=30, **request)
    body = answer.json()
    if answer.status_code != 200:
        return answer.status_code, body["error"]["code"]
    return [prediction["label"] for prediction in body["predictions"]]


def test_every_form_of_a_request(url, three, seven):
    text = base64.b64encode(three).decode()
    assert post(url, json={"inputs": [text, {"image": text}, f"data:image/png;base64,{text}"]}) == ["3"] * 3
    assert post(url, content=seven, headers={"content-type": "image/png"}) == ["7"]
    assert post(url, content=seven, headers={"content-type": "application/octet-stream"}) == ["7"]
    assert post(url, files=[("image", ("a.png", three)), ("image", ("b.png", seven))]) == ["3", "7"]


def test_bad_requests_are_rejected(url, three):
    png = {"content-type": "image/png"}
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + three[24:29]  # 30,000 x 30,000 pixels
    huge = three[:12] + header + zlib.crc32(header).to_bytes(4, "big") + three[33:]
    assert post(url, content=huge, headers=png) == (413, "image_too_large")
    assert post(url, content=b"x" * (17 << 20), headers=png) == (413, "body_too_large")
    assert post(url, content=b"a text", headers=png) == (422, "not_an_image")
    assert post(url, content=b"<svg/>", headers={"content-type": "image/svg+xml"}) == (422, "not_an_image")
    assert post(url, content=three[:-60], headers=png) == (422, "refused_input")
    assert post(url, content=b"", headers=png) == (400, "no_body")
    assert post(url, json={"inputs": ["not base64"]}) == (422, "invalid_base64")
    assert post(url, json={"inputs": [7]}) == (422, "wrong_type")
    assert post(url, data={"image": "a.png"}) == (422, "not_an_image")
    assert post(url, content=b"--x--", headers={"content-type": "multipart/form-data; boundary=x"}) == (
        422,
        "no_inputs",
    )
    many = [("image", (f"{number}.png", three)) for number in range(257)]
    assert post(url, files=many) == (413, "too_many_inputs")


def test_the_report_shows_the_mistakes_as_pictures(example):
    [report] = (example / "storage/runs").glob("*/report.html")
    page = report.read_text(encoding="utf-8")
    accuracy = json.loads((example / "storage/models/digits/versions/1/metrics.json").read_text())["test"]["accuracy"]
    assert page.count('<img src="data:image/png;base64,') == round((1 - accuracy) * 359)
    for name in ("www.w3.org", "purl.org", "creativecommons.org"):  # namespaces in the charts
        page = page.replace(f"http://{name}", "")
    assert "http" not in page
