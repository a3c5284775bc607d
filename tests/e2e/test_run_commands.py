"""The commands `raymill runs ...`, as a user types them."""

import json
import subprocess
import sys

import pytest

from support.commands import ROOT, run_raymill
from support.run_folders import finish_run, write_run


@pytest.fixture
def storage(tmp_path):
    for value in (0.5, 0.7):
        folder = write_run(tmp_path, train={"learning_rate": value / 1000})
        finish_run(folder, metrics={"validation": {"macro_f1": value}})
    return tmp_path


def test_list_is_the_default(storage):
    done = run_raymill("runs", "--storage", storage)
    lines = done.stdout.splitlines()
    assert done.code == 0 and lines[0].split()[:3] == ["run", "kind", "state"], done
    assert all("finished" in line and "macro_f1 0." in line for line in lines[1:3]) and lines[3].endswith(": 2")
    as_json = json.loads(run_raymill("runs", "--json", "--sort", "metric", "--storage", storage).stdout)
    assert [run["value"] for run in as_json["runs"]] == [0.7, 0.5]
    assert "compare" in run_raymill("runs", "--help").stdout


def test_show_and_compare(storage, tmp_path):
    names = [run["run"] for run in json.loads(run_raymill("runs", "--json", "--storage", storage).stdout)["runs"]]
    shown = run_raymill("runs", "show", names[0], "--storage", storage, "--html", tmp_path / "page.html")
    assert shown.code == 0 and "train.learning_rate" in shown.stdout and (tmp_path / "page.html").is_file(), shown
    compared = run_raymill("runs", "compare", *names, "--storage", storage)
    assert compared.code == 0 and "0.7000*" in compared.stderr and f"1: {names[0]}" in compared.stdout, compared
    wrong = run_raymill("runs", "show", "b-train", "--storage", storage)
    assert wrong.code == 2 and "neither a run" in wrong.stderr and "Traceback" not in wrong.stderr, wrong


def test_remove_asks(storage):
    command = [sys.executable, "-m", "raymill", "runs", "remove", "last", "--storage", str(storage)]

    def answer(text):
        return subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, timeout=120)

    for text, code in (("n\n", 0), ("", 2)):
        refused = answer(text)
        assert refused.returncode == code and "Remove 1 run," in refused.stderr, refused
        assert len(list((storage / "runs").iterdir())) == 2
    assert "freed" in answer("y\n").stdout
    assert len(list((storage / "runs").iterdir())) == 1
    assert run_raymill("runs", "remove", "last", "--json", "--storage", storage).code == 2
    done = run_raymill("runs", "remove", "last", "--json", "--yes", "--storage", storage)
    assert json.loads(done.stdout)["bytes"] > 0 and not list((storage / "runs").iterdir()), done
