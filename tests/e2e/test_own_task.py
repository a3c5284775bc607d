"""The custom task of docs/how-to/write-a-task.md: trained, used on a file, and served, all from the folder of its module."""

import json
import re

import httpx
import pytest

from cluster.ports import free_port
from support.commands import ROOT, RunningCommand, run_raymill
from support.tiny_text import make_text_rows, write_csv, write_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the docs' letters.py, rows, a spec, and the run of it."""
    folder = tmp_path_factory.mktemp("own")
    page = (ROOT / "docs" / "how-to" / "write-a-task.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if code.startswith("# letters.py")]
    (folder / "letters.py").write_text(code, encoding="utf-8")
    write_csv(folder / "train.csv", make_text_rows(240, seed=1))
    spec = {
        "name": "letters",
        "task": "letters:Letters",
        "data": {"train": "train.csv"},
        "train": {"epochs": 6, "batch_size": 8, "learning_rate": 0.01},
        "storage": "storage",
    }
    write_spec(folder / "run.yaml", spec)
    done = run_raymill("run", "run.yaml", "--json", cwd=folder)
    assert done.code == 0, done
    outcome = json.loads(done.stdout)
    assert outcome["promoted"] and outcome["metrics"]["test"]["accuracy"] > 0.8
    return folder


def test_predictions_for_a_file(folder):
    write_csv(folder / "new.csv", [("a good hammer", ""), ("", ""), ("my cat and my dog", "")])
    done = run_raymill("predict", "letters", "new.csv", "-o", "out.jsonl", "--storage", "storage", cwd=folder)
    assert done.code == 0, done
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["tool", None, "animal"] and rows[1]["error"] == "empty text"


def test_it_is_served_from_its_folder_and_refused_elsewhere(folder, tmp_path):
    words = ["serve", "letters", "--storage", folder / "storage", "--port", free_port(), "--engine", "native"]
    server = RunningCommand("-m", "raymill", *words, cwd=folder)
    try:
        url = server.wait_for_line("listening on").split()[-1]
        answer = httpx.post(f"{url}/predict", json={"inputs": ["a good hammer and a saw"]}).json()
        assert answer["predictions"][0]["label"] == "tool"
    finally:
        server.terminate()
    done = run_raymill("evaluate", "letters", "--storage", folder / "storage", cwd=tmp_path)
    assert done.code == 2 and "there is no module 'letters'" in done.stderr, done
