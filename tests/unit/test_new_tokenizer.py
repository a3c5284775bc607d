"""New models: a tokenizer from the training rows, and long texts in parts."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.errors import DataError, SpecError
from tests.support.chat_data import chat_spec, write_chats, write_jsonl
from trainer.chat.new_tokenizer import write_new_tokenizer
from trainer.chat.tokenizer import load_backend
from trainer.chat.tokens import learned_mask, token_ids
from trainer.data.prepare.prepare import find_prepared, prepare_rows
from trainer.inference.evaluate import read_labeled
from trainer.tasks.catalog import get_task, task_of_contract
from trainer.tasks.load_spec import load_spec

CONFIG = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2}


def new_model_spec(train, storage, tokenizer, **data):
    spec = chat_spec(storage, train, storage, **data)
    return {**spec, "model": {"config": CONFIG, "tokenizer": tokenizer}}


def prepare(train, storage, tokenizer, **data):
    spec = load_spec(new_model_spec(train, storage, tokenizer, **data))
    return prepare_rows(spec, lambda progress: None, storage / "quarantine.parquet", with_ray=False)


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"Line {number}: the café is open.\n" for number in range(400)), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_parts_of_a_text_are_the_text(kind, book, tmp_path):
    text = {"format": "text", "columns": {"text": "text"}, "max_length": 64, "chat": {"overlong": "split"}}
    prepared = prepare(book, tmp_path, {"kind": kind, "size": 300}, **text)
    tokenizer = load_backend(prepared.folder)
    by_part = {name: prepared.part(name) for name in ("train", "validation", "test")}
    assert all(len(rows) for rows in by_part.values())
    tokens = [rows.inputs(row) for rows in by_part.values() for row in range(len(rows))]
    assert max(map(len, tokens)) <= 64
    assert np.mean(list(map(len, tokens))) > 48
    assert all(learned_mask(row).all() for row in tokens)
    ends = [row for row in tokens if token_ids(row)[-1] == tokenizer.token_to_id("<|endoftext|>")]
    assert len(ends) == 1  # only the last part ends the text
    parts = [tokenizer.decode(token_ids(row).tolist()) for row in tokens]
    source = book.read_text(encoding="utf-8")
    assert sum(map(len, parts)) == len(source)
    assert all(part in source for part in parts)
    # The same parts are made of a file to evaluate, and of the rows that are held out.
    encoder = task_of_contract(prepared.contract).encoder(prepared.contract, prepared.folder)
    labeled = read_labeled(str(book), prepared.contract, prepared.folder, "text")
    assert sorted(map(bytes, encoder(labeled.columns).inputs)) == sorted(map(bytes, tokens))


def test_parts_become_requests_and_rows_again(book, tmp_path):
    text = {"format": "text", "columns": {"text": "text"}, "max_length": 64, "chat": {"overlong": "split"}}
    prepared = prepare(book, tmp_path, {"kind": "characters"}, **text)
    task = task_of_contract(prepared.contract)
    columns = {"text": prepared.part("test").raw("text")}
    requests = task.as_request(prepared.contract, columns)
    assert requests[0] == {"text": requests[0]["text"], "goes_on": True}
    assert "\0" not in requests[0]["text"]
    assert task.parse(prepared.contract, requests)["text"] == columns["text"]


def test_a_tokenizer_is_made_once_and_by_the_training_files_alone(tmp_path, monkeypatch):
    train = write_chats(tmp_path / "chats.jsonl")
    prepared = prepare(train, tmp_path, {"kind": "bpe", "size": 300})
    [folder] = (tmp_path / "learned").iterdir()
    first = (prepared.folder / "tokenizer.json").read_bytes()
    monkeypatch.setattr(type(get_task("text-generation")), "write_learned_files", None)
    spec = load_spec(new_model_spec(train, tmp_path, {"kind": "bpe", "size": 300}))
    assert find_prepared(spec).folder == prepared.folder
    assert (folder / "tokenizer.json").read_bytes() == first


def test_a_tokenizer_does_not_depend_on_the_machine(tmp_path):
    # Pinned: words are counted by as many threads as there are cores, and many pairs are equally frequent.
    texts = [f"line {number} of {number % 7} words, with ties: ab ba ab ba" for number in range(300)]
    write_new_tokenizer(tmp_path, texts, "bpe", 400, "<|user|>{{ messages }}")
    tokenizer = load_backend(tmp_path)
    tokens = [tokenizer.id_to_token(token) for token in (0, 1, 258, 259, 300, 320)]
    assert tokens == ["<|endoftext|>", "<|user|>", "ab", "ba", "Ġ21", "Ġ41"]


def test_characters_that_training_lacks_are_unknown(tmp_path):
    write_new_tokenizer(tmp_path, ["abc\n", "cd"], "characters", 0, None)
    tokenizer = load_backend(tmp_path)
    assert tokenizer.get_vocab_size() == 7
    assert tokenizer.decode(tokenizer.encode("a\nd").ids) == "a\nd"
    assert tokenizer.id_to_token(tokenizer.encode("x").ids[0]) == "<|unknown|>"


def test_rows_without_text_make_no_tokenizer(tmp_path):
    with pytest.raises(DataError, match="no training row has a text"):
        write_new_tokenizer(tmp_path, [], "bpe", 300, None)


def test_a_base_model_has_its_own_tokenizer(tmp_path):
    train = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    spec = chat_spec(tmp_path, train, tmp_path, columns={"text": "text"})
    spec["model"]["tokenizer"] = {"kind": "characters"}
    with pytest.raises(SpecError, match="has its own"):
        get_task("text-generation").check_spec(load_spec(spec))


def test_conversations_are_not_split(tmp_path):
    spec = new_model_spec(tmp_path / "chats.jsonl", tmp_path, {"kind": "bpe"}, chat={"overlong": "split"})
    with pytest.raises(SpecError, match="split is for rows of plain text"):
        get_task("text-generation").check_spec(load_spec(spec))
