"""The contract: what changes its fingerprint, what does not, and what is noticed on loading."""

import json

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import DataError, ModelError, SpecError
from cluster.files import file_sha256
from trainer.contract import contract as contracts
from trainer.contract.contract import Contract, Step
from trainer.tasks import catalog as task_catalog
from trainer.tasks.columns import resolve_columns
from trainer.tasks.fitting import fit_target
from trainer.tasks.load_spec import load_spec
from trainer.values.words import canonical_word


def make(**changes):
    values = {
        "task": "text-classification",
        "columns": {"text": "t", "label": "l"},
        "steps": [Step(name="tokenize", params={"max_length": 16, "pad_id": 0})],
        "fitted": {"labels": ["a", "b"]},
        "files": {},
        **changes,
    }
    return Contract(**values)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "other"},
        {"columns": {"text": "x", "label": "l"}},
        {"types": {"text": "number"}},
        {"steps": [Step(name="tokenize", params={"max_length": 17, "pad_id": 0})]},
        {"steps": []},
        {"fitted": {"labels": ["b", "a"]}},
        {"files": {"tokenizer.json": "00"}},
        {"preparation_version": 99},
    ],
)
def test_what_changes_the_fingerprint(change):
    assert make(**change).fingerprint != make().fingerprint


def test_the_order_of_keys_does_not():
    assert make(columns={"label": "l", "text": "t"}).fingerprint == make().fingerprint
    assert len(make().fingerprint) == 64


def test_saved_and_loaded(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    contract = make(files={"tokenizer.json": file_sha256(tmp_path / "tokenizer.json")})
    contract.save(tmp_path)
    assert contracts.load_contract(tmp_path) == contract


def edit(tmp_path, **changes):
    path = tmp_path / contracts.CONTRACT_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_changes_are_noticed(tmp_path):
    contract = make()
    with pytest.raises(ModelError, match="missing or damaged"):
        contracts.load_contract(tmp_path)
    contract.save(tmp_path)
    edit(tmp_path, fitted={"labels": ["a", "c"]})
    with pytest.raises(ModelError, match="was changed"):
        contracts.load_contract(tmp_path)
    make(preparation_version=99).save(tmp_path)
    with pytest.raises(ModelError, match="preparation version 99"):
        contracts.load_contract(tmp_path)
    make(files={"tokenizer.json": "00"}).save(tmp_path)
    with pytest.raises(ModelError, match="tokenizer.json is missing or changed"):
        contracts.load_contract(tmp_path)


def test_the_encoder_is_the_base_models_own_tokenizer(tiny_base, tmp_path):
    from transformers import AutoTokenizer

    task = task_catalog.get_task("text-classification")
    spec = load_spec({"name": "a", "data": {"train": "t.csv", "max_length": 8}, "model": {"base": str(tiny_base)}})
    contract = task.make_contract(spec, tmp_path)
    texts = ["I want a good hammer", "apple", "one two three four five six seven eight nine ten cat"]
    ours = task.encoder(contract, tmp_path)({"text": texts}).inputs
    theirs = AutoTokenizer.from_pretrained(tiny_base)(texts, truncation=True, max_length=8)["input_ids"]
    assert [ids.tolist() for ids in ours] == theirs


def test_preparation_is_pinned(tiny_base, tmp_path):
    """If this fails on purpose, raise `PREPARATION_VERSION`: models trained before would be fed other inputs."""
    task = task_catalog.get_task("text-classification")
    spec = load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": str(tiny_base)}})
    contract = task.make_contract(spec, tmp_path)
    assert contracts.PREPARATION_VERSION == 4
    spellings = ["3.0", "3.10", "True", "Zu\u0308rich ", "2026-03-01 14:00:00+02", "1e+16", "007"]
    assert list(map(canonical_word, spellings)) == [
        "3", "3.10", "true", "Zürich", "2026-03-01T12:00:00Z", "10000000000000000", "007",
    ]  # fmt: skip
    assert contract.steps == [Step(name="tokenize", params={"max_length": 64, "pad_id": 0})]
    assert [ids.tolist() for ids in task.encoder(contract, tmp_path)({"text": ["Want a CAT?"]}).inputs] == [
        [2, 6, 7, 43, 1, 3]
    ]


def test_collate_pads_and_masks():
    batch = task_catalog.get_task("text-classification").collate(make(), [np.array([1, 2, 3]), np.array([4])])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_labels_are_fitted_in_order_and_one_class_is_refused():
    task = task_catalog.get_task("text-classification")
    fitted = fit_target(task, make(fitted={}), {"b": 2, "a": 1})
    assert fitted.fitted["labels"] == ["a", "b"]
    assert task.target.codes(fitted.fitted, pa.array(["b", "z"])).tolist() == [1, -1]
    with pytest.raises(DataError, match="at least 2 classes"):
        fit_target(task, make(fitted={}), {"b": 2})
    assert fit_target(task, make(fitted={}), {"b": 2, "a": 1}, ["b", "a"]) == fitted
    assert fit_target(task, make(fitted={}), {"3": 2, "true": 1}, ["3.0", "True"]).fitted["labels"] == ["3", "true"]
    numbers = {f"{n}.5": 1 for n in range(30)}
    with pytest.raises(DataError, match="30 are numbers with decimals") as caught:
        fit_target(task, make(fitted={}), numbers)
    assert "tabular-regression" in caught.value.fix
    assert len(fit_target(task, make(fitted={}), numbers, list(numbers)).fitted["labels"]) == 30
    with pytest.raises(DataError, match="no training row has the label 'c', which data.labels names"):
        fit_target(task, make(fitted={}), {"b": 2, "a": 1}, ["a", "b", "c"])


def test_columns():
    task = task_catalog.get_task("text-classification")
    assert resolve_columns(task, {"text": "body"}) == {"text": "body", "label": "label"}
    with pytest.raises(SpecError, match="did you mean 'label'"):
        resolve_columns(task, {"lable": "x"})
    with pytest.raises(SpecError, match="two roles"):
        resolve_columns(task, {"text": "x", "label": "x"})
    with pytest.raises(SpecError, match="did you mean 'text-classification'"):
        task_catalog.get_task("text-clasification")
