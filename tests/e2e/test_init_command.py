"""`raymill init` and then `raymill run`, as a newcomer types them."""

import json

import pytest

from support.commands import run_raymill
from support.odd_table import make_odd_rows
from support.tiny_table import write_rows
from support.tiny_text import make_text_rows, write_csv


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """A folder with customers.csv and the run.yaml that init wrote for it."""
    folder = tmp_path_factory.mktemp("odd")
    write_rows(folder / "customers.csv", make_odd_rows(400))
    done = run_raymill("init", "customers.csv", cwd=folder)
    assert done.code == 0, done
    return folder, done


def run_spec(folder, *options):
    done = run_raymill("run", "run.yaml", "--storage", folder / "storage", "--json", *options, cwd=folder)
    assert done.code == 0, done
    return json.loads(done.stdout)


def test_init_prints_columns_assumptions_doubts_and_the_next_command(odd_folder):
    _, done = odd_folder
    lines = done.stdout.splitlines()
    assert (
        lines[0] == "Assumed:" and "Unsure:" in lines and lines[-1].split() == ["next:", "raymill", "run", "run.yaml"]
    )
    assert any("'remark' is left out" in line for line in lines)
    assert "what it holds" in done.stderr and "$" in done.stderr


def test_init_and_run_of_an_odd_table(odd_folder):
    folder, _ = odd_folder
    outcome = run_spec(folder)
    assert outcome["model"] == "customers" and outcome["metrics"]["test"]["accuracy"] > 0.7


def test_init_does_not_overwrite(odd_folder):
    folder, _ = odd_folder
    before = (folder / "run.yaml").read_bytes()
    done = run_raymill("init", "customers.csv", cwd=folder)
    assert done.code == 2 and "run.yaml exists already" in done.stderr and "--force" in done.stderr
    assert (folder / "run.yaml").read_bytes() == before
    assert run_raymill("init", "customers.csv", "--force", cwd=folder).code == 0


def test_init_and_run_of_texts(tmp_path, tiny_base):
    write_csv(tmp_path / "train.csv", make_text_rows(240, seed=1), ("message", "intent"))
    write_csv(tmp_path / "test.csv", make_text_rows(90, seed=2), ("message", "intent"))
    done = run_raymill("init", "train.csv", "--base", tiny_base, "--json", cwd=tmp_path)
    described = json.loads(done.stdout)
    assert described["task"] == "text-classification" and described["spec"] == "run.yaml"
    assert {"columns", "assumed", "unsure", "text"} <= set(described)
    outcome = run_spec(tmp_path, "--set", "train.epochs=2", "--set", "serve.engine=native")
    assert outcome["metrics"]["test"]["accuracy"] > 0.2


def test_errors_say_what_would_be_needed(tmp_path):
    (tmp_path / "poems").mkdir()
    for name in ("poem.txt", "poems/one.txt", "poems/two.txt"):
        (tmp_path / name).write_text("a line\n")
    drafted = run_raymill("init", "poem.txt", "--json", cwd=tmp_path)  # one text is what a language model continues
    assert drafted.code == 0 and json.loads(drafted.stdout)["task"] == "text-generation"
    done = run_raymill("init", "poems", "--json", "-o", "poems.yaml", cwd=tmp_path)
    assert done.code == 2 and "plain text without labels" in json.loads(done.stdout)["error"]
    assert "a subfolder of .txt files for each class" in done.stderr
