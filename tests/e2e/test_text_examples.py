"""The commands in the READMEs of the text examples, shortened: run, predict for a file, ask over HTTP."""

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

SHORTER = [
    "--set", "train.epochs=1", "--set", "data.steps=[{sample: {rows: 60}}]", "--set", "data.max_length=32",
    "--set", "serve.engine=native",
]  # fmt: skip


def readme_arguments(example, start):
    """Return the arguments of the README's command that starts with `start`, without the program."""
    readme = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in readme.splitlines() if line.startswith(start)]
    return shlex.split(line, comments=True)[1:]


@pytest.fixture(scope="module")
def storage_options(tmp_path_factory):
    return ["--storage", tmp_path_factory.mktemp("text_examples")]


def run(example, start, storage_options):
    done = run_raymill(*readme_arguments(example, start), *storage_options, *SHORTER, "--json")
    assert done.code == 0, done
    outcome = json.loads(done.stdout)
    assert outcome["promoted"] and (ROOT / outcome["report"]).is_file()
    return outcome["metrics"]["test"]


def test_stars(storage_options, tmp_path):
    metrics = run("app_reviews", "raymill run examples/app_reviews/stars.yaml", storage_options)
    assert 0.5 < metrics["rmse"] < 2.5 and {"mae", "r2", "spearman"} <= set(metrics)
    *arguments, out = readme_arguments("app_reviews", "raymill predict")
    assert out == "stars.csv"
    done = run_raymill(*arguments, tmp_path / out, *storage_options, "--json")
    assert done.code == 0 and json.loads(done.stdout)["predicted"] == 130, done
    table = pa_csv.read_csv(tmp_path / out, parse_options=pa_csv.ParseOptions(newlines_in_values=True))
    assert table.num_rows == 130 and all(-5 < stars < 10 for stars in table["prediction"].to_pylist())


def test_tags_over_http(storage_options):
    arguments = readme_arguments("app_reviews", "raymill run examples/app_reviews/tags.yaml --serve")
    server = RunningCommand(
        "-m", "raymill", *arguments, *storage_options, *SHORTER, "--set", f"serve.port={free_port()}"
    )
    try:
        url = re.search(r"http://\S+", server.wait_for_line("listening on"))[0]
        request = readme_arguments("app_reviews", "curl")
        body = json.loads(request[request.index("-d") + 1])
        answer = httpx.post(f"{url}/predict", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        predictions = answer.json()["predictions"]
        assert len(predictions) == len(body["inputs"]) and len(predictions[0]["scores"]) == 8
        assert all(set(prediction["labels"]) <= set(prediction["scores"]) for prediction in predictions)
        wrong = httpx.post(f"{url}/predict", json={"inputs": [{"text": "a text"}]}, timeout=60)
        assert wrong.status_code == 422 and "must be a text" in wrong.json()["error"]["message"]
    finally:
        server.terminate()


def test_pairs(storage_options, tmp_path):
    script = readme_arguments("same_question", "python ")
    done = subprocess.run([sys.executable, *script, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "train.csv: 5,000 pairs" in done.stdout, done
    parts = ("train", "validation", "test")
    texts = {}
    for part in parts:
        rows = pa_csv.read_csv(tmp_path / f"{part}.csv").to_pydict()
        assert set(rows) == {"first", "second", "answer"}
        texts[part] = {*rows["first"], *rows["second"]}
    assert not (texts["train"] & texts["validation"] or texts["train"] & texts["test"])
    data = [argument for part in parts for argument in ("--set", f"data.{part}={tmp_path / part}.csv")]
    metrics = run("same_question", "raymill run", [*storage_options, *data])
    assert 0.3 < metrics["accuracy"] < 1.0
