"""Mistakes of the user: one message with value, rule and fix, exit code 2, and never a traceback."""

import json
import shutil
import socket

import pytest
import yaml

from cluster.ports import free_port
from support.commands import run_raymill
from support.tiny_text import make_text_rows, tiny_spec, write_csv, write_spec

SEARCH = {"space": {"train.learning_rate": {"uniform": [0.1, 0.2]}}}
# (sections that replace those of a good spec, part of the message)
WRONG_SPECS = [
    ({"data": {"train": "nowhere.csv"}}, "there is no such file"),
    ({"data": {"train": "*.nothing"}}, "matches no file"),
    ({"data": {"train": "empty.csv"}}, "is empty"),
    ({"data": {"train": "notes.txt"}}, "format is not known"),
    ({"data": {"train": "bare"}}, "is a folder without rows"),
    ({"data": {"train": "ftp://bucket/rows.csv"}}, "ftp:// addresses are not supported"),
    ({"data": {"train": "s3://key:secret@bucket/rows.csv"}}, "credentials"),
    ({"data": {"train": {"url": "postgresql://me:secret@db/x", "query": "SELECT 1"}}}, "env:"),
    ({"data": {"train": "rows.csv", "columns": {"txt": "a"}}}, "data.columns has 'txt'"),
    ({"model": {"base": "/no/such/folder"}}, "no such folder"),
    ({"model": {"base": "package://no_such_package/model"}}, "is not installed"),
    ({"model": {"base": "package://json/../../etc"}}, "has no folder"),
    ({"model": {"base": "org/model-that-is-not-here"}}, "hub cannot be reached"),
    ({"model": {"base": "what is this?"}}, "neither a folder beside the spec nor a hub id"),
    ({"model": {"base": "./bare"}}, "no config.json"),
    ({"model": {"base": "./pickled"}}, "no *.safetensors"),
    ({"task": "text-clasification"}, "did you mean 'text-classification'"),
    ({"trian": {}}, "did you mean 'train'"),
    ({"train": {"epochs": "many"}}, "train.epochs='many'"),
    ({"cluster": {"workers": 50}, "train": {"batch_size": 64}}, "does not fit"),
    ({"cluster": {"gpus_per_worker": 8}}, "does not fit"),
    ({"cluster": {"address": "127.0.0.1:1"}}, "does not answer"),
    ({"cluster": {"address": "ray://127.0.0.1:1"}}, "does not answer"),
    ({"storage": "/proc/nothing"}, "cannot be written"),
    ({"tune": {"space": {"train.lr": {"choice": [1]}}}}, "unknown key 'train.lr'"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    write_csv(folder / "rows.csv", make_text_rows(60, 1))
    (folder / "empty.csv").write_text("")
    (folder / "notes.txt").write_text("hello")
    (folder / "bare").mkdir()
    (folder / "pickled").mkdir()
    (folder / "pickled" / "config.json").write_text("{}")
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    return folder


def assert_refused(done, words, code=2):
    """Check for the exit code and a message with `words` and a fix, without a traceback."""
    assert done.code == code, done
    assert words in done.stderr, done
    assert "fix:" in done.stderr and "Traceback" not in done.stderr and "Traceback" not in done.stdout, done


@pytest.mark.parametrize(("sections", "words"), WRONG_SPECS, ids=[words[:30] for _, words in WRONG_SPECS])
def test_wrong_specs_are_refused_before_anything_starts(folder, tiny_base, sections, words):
    spec = {**tiny_spec(tiny_base, folder, folder / "storage"), "data": {"train": "rows.csv"}, **sections}
    assert_refused(run_raymill("run", write_spec(folder / "run.yaml", spec), timeout_s=240), words)


def test_wrong_json_runs_print_one_object(folder):
    done = run_raymill("run", folder / "no.yaml", "--json")
    assert done.code == 2 and "there is no spec" in json.loads(done.stdout)["error"]


def test_bad_rows_are_reported_when_they_are_read(folder, tiny_base):
    """Too many bad rows: the message and the table on the screen. The unit tests have the other cases."""
    (folder / "bad.csv").write_bytes(b"text,label\n" + b"\xff\xfe,x\n" * 20)
    spec = {**tiny_spec(tiny_base, folder, folder / "storage"), "data": {"train": "bad.csv"}}
    done = run_raymill("prepare", write_spec(folder / "run.yaml", spec))
    assert_refused(done, "invalid UTF-8: 20")
    assert "Bad rows" in done.stderr and "│ invalid UTF-8 │   20 │" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nobody"], "no model 'nobody'"),
        (["evaluate", "tiny@9"], "no version 9"),
        (["evaluate", "tiny@best"], "no alias 'best'"),
        (["evaluate", "tiny", "--data", "nowhere.csv"], "no such file"),
        (["predict", "tiny", "nowhere.csv"], "no such file"),
        (["serve", "../../etc/passwd"], "no model"),
        (["models", "show", "tiny@"], "has no version after the @"),
        (["models", "promote", "tiny@7"], "no version 7"),
        (["models", "rollback", "tiny"], "no earlier version"),
        (["serve", "tiny", "--host", "203.0.113.1"], "lets anyone who can reach it send requests"),
        (["serve", "tiny", "--host", "203.0.113.1", "--insecure"], "cannot listen on"),
        (["serve", "tiny", "--keys", "/no/such/keys.json"], "the file does not exist"),
        (["serve", "tiny", "--engine", "onnx-int9"], "serve.engine"),
        (["deploy-config", "tiny", "--set", "serve.host=0.0.0.0"], "lets anyone who can reach it send requests"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_models_and_files(first_run, storage, arguments, message):
    assert_refused(run_raymill(*arguments, "--storage", storage), message)


def test_wrong_command_lines():
    for arguments in (["runn"], ["run"], ["serve", "a", "--port", "0"], ["run", "a.yaml", "--sett", "x=1"]):
        done = run_raymill(*arguments)
        assert done.code == 2 and "Traceback" not in done.stderr


def test_a_busy_port(first_run, storage):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert_refused(
            run_raymill("serve", "tiny", "--storage", storage, "--port", other.getsockname()[1]),
            "another program uses the port",
        )


def test_damaged_versions_are_neither_served_nor_evaluated(first_run, storage, tmp_path):
    shutil.copytree(storage / "models", tmp_path / "models")
    folder = tmp_path / "models" / "tiny" / "versions" / "1"
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-8] + b"corrupt!")
    for command in (["evaluate", "tiny"], ["serve", "tiny", "--port", free_port()], ["predict", "tiny", "x.csv"]):
        assert_refused(run_raymill(*command, "--storage", tmp_path), "model.safetensors is damaged")
    weights.write_bytes(content)
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[: len(text) // 2])
    assert_refused(run_raymill("evaluate", "tiny", "--storage", tmp_path), "manifest.json is missing or damaged")


def test_a_model_that_does_not_reproduce_its_golden_rows_is_not_served(first_run, storage, tmp_path):
    """The files match the manifest, but the model's scores differ from those recorded when it was registered."""
    from cluster.files import file_sha256, read_json, write_json

    shutil.copytree(storage / "models", tmp_path / "models")
    folder = tmp_path / "models" / "tiny" / "versions" / "1"
    golden = read_json(folder / "golden.json")
    golden["rows"][0]["scores"] = golden["rows"][0]["scores"][::-1]
    write_json(folder / "golden.json", golden)
    manifest = read_json(folder / "manifest.json")
    manifest["files"]["golden.json"] = {
        "sha256": file_sha256(folder / "golden.json"),
        "bytes": (folder / "golden.json").stat().st_size,
    }
    write_json(folder / "manifest.json", manifest)
    assert_refused(run_raymill("serve", "tiny", "--storage", tmp_path, "--port", free_port()), "golden row 0")


def test_debug_shows_the_traceback_and_secrets_are_not_in_specs(folder, tiny_base):
    spec = tiny_spec(tiny_base, folder, folder / "storage")
    done = run_raymill("run", write_spec(folder / "run.yaml", {**spec, "data": {"train": "nowhere.csv"}}), "--debug")
    assert done.code == 2 and "Traceback" in done.stderr
    assert yaml.safe_load((folder / "run.yaml").read_text())["name"] == "tiny"
