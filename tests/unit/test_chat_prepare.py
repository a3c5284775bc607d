"""Conversations through preparation: tokens and masks in shards, bad rows, leaks."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.support.chat_data import chat, chat_spec, write_chat_base, write_chats, write_jsonl
from trainer.chat.tokens import learned_mask, token_ids
from trainer.data.folder import QUARANTINE
from trainer.data.prepare.prepare import prepare_rows
from trainer.inference.held_out import load_held_out, sample_requests
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.load_spec import load_spec


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_chat_base(tmp_path_factory.mktemp("base"))


def prepare(base, train, storage, **data):
    spec = load_spec(chat_spec(base, train, storage, **data))
    return prepare_rows(spec, lambda progress: None, storage / "quarantine.parquet", with_ray=False)


def test_tokens_and_masks_are_in_the_shards(base, tmp_path):
    prepared = prepare(base, write_chats(tmp_path / "chats.jsonl"), tmp_path)
    assert sum(prepared.summary["rows"].values()) == 60
    encoder = task_of_contract(prepared.contract).encoder(prepared.contract, prepared.folder)
    tokenizer = encoder.rows.tokenizer
    rows = prepared.part("train")
    for row in range(len(rows)):
        tokens = rows.inputs(row)
        learned = tokenizer.decode(token_ids(tokens)[learned_mask(tokens)].tolist(), skip_special_tokens=False)
        answers = [part for part in learned.split("<|im_end|>") if part]
        assert all(part.startswith(("Open setting", "Then press")) for part in answers)
        assert len(answers) in (1, 2)
    # Evaluation and serving encode the raw values again, to the same tokens.
    held_out = load_held_out(prepared)
    again = encoder(held_out.columns).inputs
    test = prepared.part("test")
    assert all((again[row] == test.inputs(row)).all() for row in range(len(test)))


def test_requests_of_rows_are_whole_conversations(base, tmp_path):
    prepared = prepare(base, write_chats(tmp_path / "chats.jsonl"), tmp_path)
    task = task_of_contract(prepared.contract)
    requests = sample_requests(prepared, 3)
    assert [request["messages"][-1]["role"] for request in requests] == ["assistant"] * 3
    columns = task.parse(prepared.contract, requests)
    inputs = task.encoder(prepared.contract, prepared.folder)(columns).inputs
    validation = prepared.part("validation")
    assert all((inputs[row] == validation.inputs(row)).all() for row in range(3))


def test_bad_rows_are_listed_with_their_reason(base, tmp_path):
    rows = [{"messages": chat(f"question {number}", "answer")} for number in range(40)]
    bad = [
        {"messages": chat("hello", "fine", "and you?")},
        {"messages": [{"role": "user"}]},
        {"messages": []},
        {"messages": "hello"},
        {"other": 1},
        {"messages": [{"role": "assistant", "content": "hello"}]},
        {"messages": chat("hello", "word " * 500)},
        {"messages": [{"role": "robot", "content": "x"}, {"role": "assistant", "content": "hello"}]},
    ]
    train = write_jsonl(tmp_path / "chats.jsonl", [*rows, *bad])
    prepared = prepare(base, train, tmp_path, max_bad_fraction=0.5)
    listed = pq.read_table(prepared.folder / QUARANTINE)
    assert dict(zip(listed["row"].to_pylist(), listed["reason"].to_pylist(), strict=True)) == {
        41: "the last message is not by the assistant",
        42: "message 1 has no content",
        43: "no message",
        44: "messages: not JSON",
        45: "missing messages",
        46: "nothing to learn in it",
        47: "over 200 tokens",
        48: "message 1: unknown role",
    }


def test_the_same_prompt_in_train_and_test_is_a_leak(base, tmp_path):
    train = write_chats(tmp_path / "train.jsonl")
    test = write_jsonl(
        tmp_path / "test.jsonl",
        [
            {"messages": chat("How do I reset password 1?", "In another way.")},
            {"messages": chat("Something new", "Something else.")},
            {"messages": chat("Something new", "Another answer.")},
            {"messages": chat("Something new", "Another answer.")},
        ],
    )
    prepared = prepare(base, train, tmp_path, test=str(test), max_bad_fraction=0.5)
    assert prepared.summary["quarantined"] == {"also in train": 1, "duplicate": 1}
    assert prepared.summary["rows"]["test"] == 2


def test_rows_with_one_prompt_are_in_one_part(base, tmp_path):
    rows = [{"messages": chat(f"question {number % 20}", f"answer {number}")} for number in range(200)]
    prepared = prepare(base, write_jsonl(tmp_path / "chats.jsonl", rows), tmp_path)
    asked = {
        part: {row["messages"][0]["content"] for row in _requests(prepared, part)}
        for part in ("train", "validation", "test")
    }
    assert all(asked.values())
    assert len(set.union(*asked.values())) == sum(map(len, asked.values())) == 20


def _requests(prepared, part):
    rows = prepared.part(part)
    return task_of_contract(prepared.contract).as_request(prepared.contract, {"messages": rows.raw("messages")})
