"""Files of earlier versions of raymill: refused in one sentence with the fix, or not used; never misread."""

import pytest
import yaml

from cluster.errors import ModelError, SpecError
from cluster.files import json_sha256, write_json
from serve.engines import engine_store
from support.tiny_text import tiny_spec
from trainer.contract.contract import CONTRACT_FILE, PREPARATION_VERSION, load_contract
from trainer.data.prepare import staging
from trainer.data.prepare.prepare import find_prepared, prepare_rows
from trainer.registry.register import load_registered_rows
from trainer.registry.registry import LINEAGE_FILE, Registry
from trainer.runs.folder import RESOLVED_SPEC_FILE, create_run, load_run_spec
from trainer.runs.resume import load_for_repeat, load_for_resume
from trainer.tasks.load_spec import load_spec

# As the version before wrote it: the step is `normalise` there.
OLD_CONTRACT = {
    "task": "text-classification",
    "columns": {"text": "text", "label": "label"},
    "types": {"text": "text", "label": "text"},
    "steps": [
        {"name": "normalise", "params": {"unicode": "NFC", "whitespace": True, "lowercase": False}},
        {"name": "tokenize", "params": {"max_length": 64, "pad_id": 0}},
    ],
    "fitted": {"labels": ["a", "b"]},
    "files": {},
    "preparation_version": 2,
}


def write_old_contract(folder, **fields):
    content = {**OLD_CONTRACT, **fields}
    write_json(folder / CONTRACT_FILE, {"fingerprint": json_sha256(content), **content})


@pytest.mark.parametrize("fields", [{}, {"a_field_of_then": 1}, {"preparation_version": 99, "a_field_of_tomorrow": 1}])
def test_a_contract_of_another_version_is_refused(tmp_path, fields):
    write_old_contract(tmp_path, **fields)
    with pytest.raises(ModelError, match="was written by another version of raymill") as caught:
        load_contract(tmp_path)
    assert f"reads version {PREPARATION_VERSION}" in caught.value.problem and "train again" in caught.value.fix


def test_a_registered_version_of_before_is_refused_before_its_lineage_is_read(tmp_path):
    def fill(folder):
        write_old_contract(folder)
        write_json(folder / LINEAGE_FILE, {"prepared data": "/p", "digest of the held-out rows": "00"})

    version = Registry(str(tmp_path)).register("demo", fill)
    with pytest.raises(ModelError, match="was written by another version of raymill"):
        load_registered_rows(version)


def test_rows_that_another_version_prepared_are_prepared_again(tiny_base, tiny_data, tmp_path, monkeypatch):
    spec = load_spec(tiny_spec(tiny_base, tiny_data, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(staging, "PREPARATION_VERSION", PREPARATION_VERSION - 1)
        earlier = prepare_rows(spec, lambda progress: None, tmp_path / "quarantine.parquet")
        assert find_prepared(spec).folder == earlier.folder
    assert find_prepared(spec) is None
    again = prepare_rows(spec, lambda progress: None, tmp_path / "quarantine.parquet")
    assert again.folder != earlier.folder


def test_an_engine_choice_of_another_version_is_measured_again(tmp_path):
    version = Registry(str(tmp_path)).register("demo", lambda folder: write_old_contract(folder))
    hardware = {"device": "cpu", "name": "a"}
    choice = {
        "format": engine_store.FORMAT,
        "checkpoint": engine_store.checkpoint_digest(version),
        "hardware": hardware,
    }
    folder = engine_store.engine_folder(version, hardware)
    folder.mkdir(parents=True)
    engine_store.save_choice(folder, choice, "auto")
    assert engine_store.load_choice(version, hardware, "auto") == choice
    engine_store.save_choice(folder, {**choice, "format": 3}, "auto")
    assert engine_store.load_choice(version, hardware, "auto") is None


def test_a_run_of_before_is_neither_resumed_nor_repeated(tmp_path):
    spec = load_spec({"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(tmp_path)})
    folder = create_run(spec, "train")
    path = folder / RESOLVED_SPEC_FILE
    resolved = yaml.safe_load(path.read_text())
    resolved["serve"]["idle_s"] = resolved["serve"].pop("downscale_delay_s")
    path.write_text(yaml.safe_dump(resolved))
    for load in (load_for_resume, load_for_repeat):
        with pytest.raises(SpecError, match="an earlier raymill wrote the run") as caught:
            load(folder.name, tmp_path, [])
        assert "`serve.idle_s`, now called `serve.downscale_delay_s`" in caught.value.problem
        assert "start a new run" in caught.value.fix


def test_an_old_key_given_to_a_resumed_run_names_the_new_one(tmp_path):
    spec = load_spec({"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(tmp_path)})
    folder = create_run(spec, "train")
    with pytest.raises(SpecError, match=r"tune\.load\.seconds: renamed; use tune\.load_test\.seconds"):
        load_for_resume(folder.name, tmp_path, ["tune.load.seconds=3"])


def test_a_run_with_steps_can_be_loaded_again(tmp_path):
    steps = ["strip_html", {"normalize": {"lowercase": True}}, {"deduplicate": None}]
    spec = load_spec(
        {"name": "a", "data": {"train": "a.csv", "steps": steps}, "model": {"base": "b"}, "storage": str(tmp_path)}
    )
    loaded = load_run_spec(create_run(spec, "train"))
    assert [(step.name, step.params) for step in loaded.data.steps] == [
        (step.name, step.params) for step in spec.data.steps
    ]
