"""The examples on texts by their READMEs' own commands, only shorter: run, predict on a file, ask over HTTP."""

import json
import re
import shlex
import subprocess
import sys

import httpx
import pyarrow.csv as pa_csv
import pytest

from cluster.ports import free_port
from support.commands import ROOT, RunningCommand, run_raymill

SHORTER = ["--set", "train.epochs=1", "--set", "data.steps=[{sample: {rows: 60}}]", "--set", "serve.engine=native"]


def command(example, start):
    """Return the words of the README's line that begins with `start`, without the first."""
    readme = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in readme.splitlines() if line.startswith(start)]
    return shlex.split(line, comments=True)[1:]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return ["--storage", tmp_path_factory.mktemp("text_examples")]


def run(example, start, place):
    done = run_raymill(*command(example, start), *place, *SHORTER, "--json")
    assert done.code == 0, done
    found = json.loads(done.stdout)
    assert found["promoted"] and (ROOT / found["report"]).is_file()
    return found["metrics"]["test"]


def test_stars(place, tmp_path):
    figures = run("app_reviews", "raymill run examples/app_reviews/stars.yaml", place)
    assert 0.5 < figures["rmse"] < 2.5 and {"mae", "r2", "spearman"} <= set(figures)
    *words, out = command("app_reviews", "raymill predict")
    assert out == "stars.csv"
    done = run_raymill(*words, tmp_path / out, *place, "--json")
    assert done.code == 0 and json.loads(done.stdout)["predicted"] == 130, done
    table = pa_csv.read_csv(tmp_path / out, parse_options=pa_csv.ParseOptions(newlines_in_values=True))
    assert table.num_rows == 130 and all(-5 < stars < 10 for stars in table["prediction"].to_pylist())


def test_tags_over_http(place):
    words = command("app_reviews", "raymill run examples/app_reviews/tags.yaml --serve")
    server = RunningCommand("-m", "raymill", *words, *place, *SHORTER, "--set", f"serve.port={free_port()}")
    try:
        url = re.search(r"http://\S+", server.wait_for("listening on"))[0]
        request = command("app_reviews", "curl")
        body = json.loads(request[request.index("-d") + 1])
        answer = httpx.post(f"{url}/predict", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        predictions = answer.json()["predictions"]
        assert len(predictions) == len(body["inputs"]) and len(predictions[0]["scores"]) == 8
        assert all(set(found["labels"]) <= set(found["scores"]) for found in predictions)
        wrong = httpx.post(f"{url}/predict", json={"inputs": [{"text": "a text"}]}, timeout=60)
        assert wrong.status_code == 422 and "must be a text" in wrong.json()["error"]["message"]
    finally:
        server.end()


def test_pairs(place, tmp_path):
    script = command("same_question", "python ")
    done = subprocess.run([sys.executable, *script, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "train.csv: 5,000 pairs" in done.stdout, done
    parts = ("train", "validation", "test")
    texts = {}
    for part in parts:
        rows = pa_csv.read_csv(tmp_path / f"{part}.csv").to_pydict()
        assert set(rows) == {"first", "second", "answer"}
        texts[part] = {*rows["first"], *rows["second"]}
    assert not (texts["train"] & texts["validation"] or texts["train"] & texts["test"])
    where = [word for part in parts for word in ("--set", f"data.{part}={tmp_path / part}.csv")]
    figures = run("same_question", "raymill run", [*place, *where])
    assert 0.3 < figures["accuracy"] < 1.0
