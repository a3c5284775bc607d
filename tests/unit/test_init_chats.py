"""`raymill init` knows conversations, prompts with completions, pairs, judged answers and plain text."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.chat_data import TOOLS, chat, write_chat_base, write_jsonl
from trainer.draft.draft import draft_spec

LONG = "a question of some words, and of different words in every row"
ROWS = 60


@pytest.fixture
def base(tmp_path):
    return write_chat_base(tmp_path / "base")


def draft(path, base, **options):
    return draft_spec([str(path)], folder=path.parent, base=str(base), **options)


def rows_of(make):
    return [make(number) for number in range(ROWS)]


def shared(number):
    return [{"from": "human", "value": f"{LONG} {number}"}, {"from": "gpt", "value": f"answer {number}"}]


@pytest.mark.parametrize(
    ("make", "columns"),
    [
        (lambda n: {"messages": chat(f"{LONG} {n}", f"answer {n}"), "id": n}, {"messages": "messages"}),
        (lambda n: {"conversations": shared(n), "source": "web"}, {"messages": "conversations"}),
        (
            lambda n: {"messages": chat(f"{LONG} {n}", f"answer {n}"), "tools": TOOLS},
            {"messages": "messages", "tools": "tools"},
        ),
        (
            lambda n: {"instruction": f"{LONG} {n}", "output": f"an answer of several words {n}", "input": ""},
            {"prompt": "instruction", "completion": "output"},
        ),
        (
            lambda n: {"prompt": f"{n} + 1 =", "completion": str(n + 1)},
            {"prompt": "prompt", "completion": "completion"},
        ),
        (lambda n: {"text": f"{LONG}, and so on {n}. " * 3}, {"text": "text"}),
    ],
)
def test_layouts_are_recognized(make, columns, base, tmp_path):
    drafted = draft(write_jsonl(tmp_path / "rows.jsonl", rows_of(make)), base)
    assert drafted.spec.task == "text-generation"
    assert drafted.spec.data.columns == columns
    assert drafted.spec.model.base == str(base)
    assert f"train: rows.jsonl  # {ROWS} rows" in drafted.text
    assert {row["name"]: row["used_as"] for row in drafted.columns if row["used_as"] != "left out"} == {
        column: role for role, column in columns.items()
    }


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (lambda n: {"prompt": f"{LONG} {n}", "chosen": f"yes {n}", "rejected": f"no {n}"}, "dpo"),
        (lambda n: {"chosen": chat(f"{LONG} {n}", "yes"), "rejected": chat(f"{LONG} {n}", "no")}, "dpo"),
        (lambda n: {"prompt": f"{LONG} {n}", "completion": f"yes {n}", "label": n % 2 == 0}, "kto"),
    ],
)
def test_preferences_get_their_method(make, method, base, tmp_path):
    drafted = draft(write_jsonl(tmp_path / "rows.jsonl", rows_of(make)), base)
    assert drafted.spec.train.method.kind == method


def test_typed_files_are_recognized(base, tmp_path):
    table = pa.table({"messages": [chat(f"{LONG} {number}", "answer") for number in range(ROWS)]})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert draft(tmp_path / "rows.parquet", base).spec.data.columns == {"messages": "messages"}
    cells = [json.dumps(chat(f"{LONG} {number}", "answer")).replace('"', '""') for number in range(ROWS)]
    (tmp_path / "rows.csv").write_text("messages,id\n" + "".join(f'"{cell}",{n}\n' for n, cell in enumerate(cells)))
    assert draft(tmp_path / "rows.csv", base).spec.data.columns == {"messages": "messages"}


def test_a_text_file_is_learned_in_parts(base, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(f"{LONG}.\n" * 100, encoding="utf-8")
    spec = draft(path, base).spec
    assert (spec.data.format.kind, spec.data.columns, spec.data.chat.overlong) == ("text", {"text": "text"}, "split")


def test_a_text_with_a_class_is_no_completion(base, tmp_path):
    rows = rows_of(lambda n: {"question": f"{LONG} {n}", "answer": ("yes", "no")[n % 2]})
    assert draft(write_jsonl(tmp_path / "rows.jsonl", rows), base).spec.task == "text-classification"


def test_leaks_and_repeated_rows_of_a_sample_are_doubts(base, tmp_path):
    rows = rows_of(lambda n: {"messages": chat(f"{LONG} {n}", f"answer {n}")})
    write_jsonl(tmp_path / "chats_test.jsonl", rows[:30])
    drafted = draft(write_jsonl(tmp_path / "chats_train.jsonl", [*rows, rows[0], {"messages": "?"}]), base)
    doubts = " ".join(map(str, drafted.unsure))
    assert "also in train" in doubts and "duplicate" in doubts
