"""Differences between two contracts: every field by its path, none if they are equal."""

import json

import pytest

from cluster.errors import ModelError
from cluster.files import file_sha256
from support.tiny_text import write_csv
from trainer.contract.contract import CONTRACT_FILE, Contract, Step
from trainer.contract.diff import compare_contracts
from trainer.contract.show import format_contract
from trainer.registry.contracts import find_contract

A, B = "a" * 64, "b" * 64


def make(**changes):
    values = {
        "task": "text-classification",
        "columns": {"text": "t", "label": "l"},
        "steps": [
            Step(name="normalize", params={"unicode": "NFC"}),
            Step(name="tokenize", params={"max_length": 128, "pad_id": 0}),
        ],
        "fitted": {"labels": ["a", "b", "c"]},
        "files": {"tokenizer.json": A},
        **changes,
    }
    return Contract(**values).model_dump(mode="json")


def changes_between(before, after):
    return [str(change) for change in compare_contracts(before, after)]


def test_equal_contracts_do_not_differ():
    assert compare_contracts(make(), make()) == []
    assert compare_contracts(make(columns={"label": "l", "text": "t"}), make()) == []  # as in the fingerprint


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"columns": {"text": "body", "label": "l"}}, ["columns.text: t -> body"]),
        ({"preparation_version": 99}, ["preparation_version: {} -> 99"]),
        ({"fitted": {"labels": ["a", "c", "d"]}}, ["fitted.labels: removed 'b'", "fitted.labels: added 'd'"]),
        ({"fitted": {"labels": ["b", "a", "c"]}}, ["fitted.labels: another order, 'a', 'b', 'c' -> 'b', 'a', 'c'"]),
        ({"files": {"tokenizer.json": B}}, [f"files['tokenizer.json']: {A[:12]}… -> {B[:12]}…"]),
        ({"files": {}}, [f"files['tokenizer.json']: removed {A[:12]}…"]),
        (
            {"steps": [Step(name="tokenize", params={"max_length": 256, "pad_id": 0})]},
            ['steps.normalize: removed {"unicode": "NFC"}', "steps.tokenize.max_length: 128 -> 256"],
        ),
    ],
)
def test_what_changed_is_named_by_field(change, lines):
    assert changes_between(make(), make(**change)) == [
        line.replace("{}", str(make()["preparation_version"])) for line in lines
    ]


def test_steps_in_another_order_and_twice():
    steps = [Step(name="x", params={"n": 1}), Step(name="y", params={}), Step(name="x", params={"n": 2})]
    assert changes_between(make(steps=steps), make(steps=[steps[1], steps[0], steps[2]])) == [
        "steps: another order, 'x', 'y', 'x#2' -> 'y', 'x', 'x#2'"
    ]
    changed = [*steps[:2], Step(name="x", params={"n": 3})]
    assert changes_between(make(steps=steps), make(steps=changed)) == ["steps['x#2'].n: 2 -> 3"]


def test_unknown_fields_are_compared_too():
    before = {"schema": {"age": {"type": "int", "range": [0, 9]}}, "x": 1, "bins": [1, 1, 2], "of": [[1], [2]]}
    after = {
        "schema": {"age": {"type": "float", "range": [0, 10]}},
        "x": 1.0,
        "bins": [1, 2, 2],
        "of": [[1], [3]],
        "new": [1],
    }
    assert changes_between(before, after) == [
        "schema.age.type: int -> float",
        "schema.age.range: removed 9",
        "schema.age.range: added 10",
        "x: 1 -> 1.0",
        "bins[1]: 1 -> 2",
        "of[1]: removed 2",
        "of[1]: added 3",
        "new: added 1",
    ]


def test_empty_exactly_when_the_fingerprints_are_equal():
    variants = [make(), make(task="o"), make(steps=[]), make(fitted={}), make(fitted={"labels": []}), make(files={})]
    for first in variants:
        for second in variants:
            equal = Contract(**first).fingerprint == Contract(**second).fingerprint
            assert (compare_contracts(first, second) == []) == equal, (first, second)


def test_long_lists_and_texts_are_cut_for_people():
    labels = [f"label {n}" for n in range(100)]
    (line,) = changes_between(make(fitted={"labels": []}), make(fitted={"labels": labels}))
    assert line.endswith("'label 4' and 95 more")
    assert len(changes_between({"x": "a" * 999}, {"x": "b"})[0]) < 150


def test_a_folder_is_read_and_a_changed_one_refused(tmp_path):
    write_csv(tmp_path / "tokenizer.json", [])
    contract = Contract(**make(files={"tokenizer.json": file_sha256(tmp_path / "tokenizer.json")}))
    contract.save(tmp_path)
    named = find_contract(str(tmp_path), tmp_path / "no storage")
    assert (named.fingerprint, named.contract) == (contract.fingerprint, contract.model_dump(mode="json"))
    lines = format_contract(named._asdict())
    assert "  2. tokenize     max_length 128, pad_id 0" in lines and "  labels       3: a, b, c" in lines
    (tmp_path / "tokenizer.json").write_text("other")
    with pytest.raises(ModelError, match="tokenizer.json is missing or changed"):
        find_contract(str(tmp_path), tmp_path)
    with pytest.raises(ModelError, match=r"has no contract\.json"):
        find_contract(str(tmp_path.parent), tmp_path)
    with pytest.raises(ModelError, match="there is no model 'nobody'"):
        find_contract("nobody", tmp_path)


def test_a_contract_of_another_code_version_can_still_be_read(tmp_path):
    old = {**make(), "preparation_version": 0, "what_it_had_then": [1]}
    (tmp_path / CONTRACT_FILE).write_text(json.dumps({"fingerprint": A, **old}))
    named = find_contract(str(tmp_path), tmp_path)
    assert named.contract == old and "what_it_had_then: 1: 1" in format_contract(named._asdict())
