"""`raymill contract` and `raymill data` as a user types them, and the files that registration writes beside the contract."""

import json
import re
import shutil
from pathlib import Path

import pytest

from cluster.files import file_sha256, read_json, write_json
from cluster.ports import free_port
from support.commands import run_raymill
from support.tiny_text import make_text_rows, tiny_spec, write_csv, write_spec


def test_contract_show(first_run, storage):
    done = run_raymill("contract", "show", "tiny@champion", "--storage", storage)
    assert done.code == 0, done
    assert done.stdout.startswith("tiny@1\n") and f"fingerprint: {first_run['fingerprint']}" in done.stdout
    for line in ("max_length", "labels       3: animal, fruit, tool", "tokenizer.json", "libraries: python"):
        assert line in done.stdout, line
    shown = json.loads(run_raymill("contract", "show", "tiny@1", "--storage", storage, "--json").stdout)
    assert shown["fingerprint"] == first_run["fingerprint"] and shown["contract"]["fitted"]["labels"][0] == "animal"
    # A folder, prepared or registered, needs no storage.
    by_folder = json.loads(run_raymill("contract", "show", shown["folder"], "--json").stdout)
    assert by_folder["contract"] == shown["contract"]


def test_contract_diff(first_run, storage, spec_file, tiny_data, tmp_path):
    done = run_raymill("contract", "diff", "tiny", "tiny@1", "--storage", storage)
    assert (done.code, done.stdout) == (0, "same\n"), done
    rows = [(text, "gadget" if label == "tool" else label) for text, label in make_text_rows(120, seed=7)]
    other = write_csv(tmp_path / "other.csv", rows)
    change = ["--set", f"data={{train: {other}, max_length: 32}}"]
    done = run_raymill("prepare", spec_file, "--storage", tmp_path, *change, "--json")
    assert done.code == 0, done
    (folder,) = (tmp_path / "prepared").glob("[0-9a-f]*")
    done = run_raymill("contract", "diff", "tiny", folder, "--storage", storage)
    assert done.code == 0, done
    assert set(done.stdout.splitlines()) == {
        'steps.normalize: removed {"unicode": "NFC", "whitespace": true, "lowercase": false}',
        "steps.strip_html: removed {}",
        "steps.tokenize.max_length: 64 -> 32", "fitted.labels: removed 'tool'", "fitted.labels: added 'gadget'",
    }  # fmt: skip
    diff = json.loads(run_raymill("contract", "diff", "tiny", folder, "--storage", storage, "--json").stdout)
    assert diff["same"] is False and diff["first"]["fingerprint"] == first_run["fingerprint"]
    assert {"field": "steps.tokenize.max_length", "kind": "changed", "before": 64, "after": 32} in diff["changes"]
    done = run_raymill("contract", "diff", "tiny@1", "tiny@9", "--storage", storage)
    assert done.code == 2 and "has no version 9" in done.stderr


def test_a_registered_version_has_its_profile(first_run, storage):
    folder = storage / "models" / "tiny" / "versions" / "1"
    profile = read_json(folder / "profile.json")
    assert profile["rows"]["train"] > 100 and set(profile["labels"]["train"]) == {"animal", "fruit", "tool"}
    assert profile["embedding"]["rows"] == min(2000, profile["rows"]["train"]) and profile["embedding"]["from"] == 32
    assert 0 < profile["unknown"]["token_share"] < 0.5 and profile["max_length"] == 64
    assert "profile.json" in read_json(folder / "manifest.json")["files"]
    assert read_json(folder / "golden.json")["library"].startswith("the same ids as transformers")


@pytest.fixture
def editable_version(storage, tmp_path):
    """A copy of the registered model whose golden rows a test may edit."""
    shutil.copytree(storage / "models", tmp_path / "models")
    return tmp_path / "models" / "tiny" / "versions" / "1"


def test_a_golden_row_that_differs_is_named_by_row_and_field(first_run, editable_version, tmp_path):
    golden = read_json(editable_version / "golden.json")
    golden["rows"][3]["inputs"][1] += 1
    write_json(editable_version / "golden.json", golden)
    manifest = read_json(editable_version / "manifest.json")
    path = editable_version / "golden.json"
    manifest["files"]["golden.json"] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    write_json(editable_version / "manifest.json", manifest)
    done = run_raymill("serve", "tiny", "--storage", tmp_path, "--port", free_port())
    assert done.code == 2 and re.search(r"golden row 3, inputs\[1\]: recorded \d+, now \d+ \(token '", done.stderr), (
        done
    )


def test_data_report(spec_file, storage, first_run):
    done = run_raymill("data", "report", spec_file, "--json")
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert report["data"]["classes"] == 3
    assert report["fingerprint"] == first_run["fingerprint"]
    assert "ray" not in report["stages"]
    text = Path(report["report"]).read_text(encoding="utf-8")
    assert text.count("<svg") == 1 and "Labels that look wrong" in text
    assert Path(report["report"]).parent == Path(report["run"]) and Path(report["report"]).name == "data.html"
    done = run_raymill("data", "report", spec_file)
    assert done.code == 0 and done.stdout.splitlines()[-1].startswith("report: ")


def test_data_report_prepares_the_rows_if_necessary(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", [*make_text_rows(90, seed=1), ("", "tool")])
    spec = tiny_spec(
        tiny_base, tmp_path, tmp_path / "storage", data={"train": str(tmp_path / "train.csv"), "max_bad_fraction": 0.1}
    )
    done = run_raymill("data", "report", write_spec(tmp_path / "run.yaml", spec), "--json")
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert sum(report["data"]["bad_rows"].values()) == 1 and report["stages"]["prepare"] > 0
    assert "row 91" in Path(report["report"]).read_text(encoding="utf-8")


def test_wrong_input_and_help(tmp_path):
    done = run_raymill("data", "report", tmp_path / "none.yaml")
    assert done.code == 2 and "none.yaml" in done.stderr
    done = run_raymill("contract", "show", "nobody", "--storage", tmp_path)
    assert done.code == 2 and "there is no model 'nobody'" in done.stderr
    for command in ("contract", "contract show", "contract diff", "data", "data report"):
        done = run_raymill(*command.split(), "--help")
        assert done.code == 0 and "Usage:" in done.stdout
