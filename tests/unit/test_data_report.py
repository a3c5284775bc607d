"""The report on data: duplicates, leaks, doubtful labels, and a page that opens offline and escapes any text."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.tiny_text import WORDS, make_text_rows
from trainer.data.folder import QUARANTINE
from trainer.data.parts import PARTS
from trainer.report.data_charts import draw_class_sizes
from trainer.report.data_facts import UsableRows, count_bad_rows, count_classes, describe_lengths, find_typical_words
from trainer.report.data_page import DataFacts, list_findings, write_data_page
from trainer.report.duplicates import (
    count_duplicates,
    find_contradictions,
    find_leaks,
    find_repeated,
    fold_text,
    group_duplicates,
)
from trainer.report.suspects import find_suspects


def all_rows(*rows):
    """Return the rows given as (part, text, label)."""
    parts = np.array([PARTS.index(part) for part, _, _ in rows], np.int8)
    texts = [text for _, text, _ in rows]
    return UsableRows(texts, [label for _, _, label in rows], parts, np.array([len(text.split()) for text in texts]))


LONG = "my card has not arrived yet and it has been two weeks since i ordered it"
ROWS = all_rows(
    ("train", "Where is my card?", "arrival"),
    ("train", "where is my card", "arrival"),
    ("train", LONG, "arrival"),
    ("train", "Freeze it!", "freeze"),
    ("train", "Freeze it!", "arrival"),
    ("train", "???", "freeze"),
    ("validation", "nothing like it", "freeze"),
    ("test", "WHERE IS MY CARD", "arrival"),
    ("test", LONG + " today", "freeze"),
    ("test", "!!!", "freeze"),
    ("test", "Freeze it!", "freeze"),
)


def test_equal_texts_by_degree():
    assert fold_text("Don't  STOP,me—now!") == "dont stop me now"
    assert fold_text("???") == "???"
    assert fold_text("हिन्दी।") == "हिन्दी"  # accents that belong to letters stay
    counts = count_duplicates(ROWS, group_duplicates(ROWS.texts))
    assert counts[0] == {"part": "train", "exact": 1, "case": 1, "near": 0}
    assert counts[2] == {"part": "test", "exact": 0, "case": 0, "near": 0}


def test_leaks_count_each_row_once_by_its_strictest_degree():
    into_test, into_validation, between = find_leaks(ROWS, group_duplicates(ROWS.texts))
    assert (into_test["source"], into_test["part"], into_test["rows"]) == ("train", "test", 3)
    assert (into_test["exact"], into_test["case"], into_test["near"]) == (1, 1, 1)
    near = into_test["examples"][-1]
    assert (near["degree"], near["other"], near["label"], near["other_label"]) == ("near", LONG, "freeze", "arrival")
    assert into_validation["rows"] == between["rows"] == 0


def test_the_same_text_under_two_labels():
    (contradiction,) = find_contradictions(ROWS, group_duplicates(ROWS.texts))
    assert contradiction == {"text": "Freeze it!", "labels": [("freeze", 2), ("arrival", 1)]}
    repeated = find_repeated(ROWS, group_duplicates(ROWS.texts))
    assert {entry["rows"] for entry in repeated} == {2} and repeated[0]["texts"]


def test_classes_lengths_and_words():
    first, second = count_classes(ROWS, ["freeze", "arrival"])
    assert (first["label"], first["train"], first["validation"], first["test"]) == ("freeze", 2, 1, 3)
    assert second["rows"] == 5 and first["share"] + second["share"] == 1.0
    train = describe_lengths(ROWS, 4)[0]
    assert (train["longest"], train["at_limit"], train["median"]) == (16, 0.5, 3.0)
    words = find_typical_words(all_rows(*(("train", text, label) for text, label in make_text_rows(300, seed=3))))
    assert all(set(words[label][:3]) <= set(WORDS[label]) for label in WORDS)


def mislabeled_rows():
    rows = make_text_rows(600, seed=5)
    wrong = set(range(0, 600, 60))
    other = {"fruit": "tool", "tool": "animal", "animal": "fruit"}
    return [(text, other[label] if row in wrong else label) for row, (text, label) in enumerate(rows)], wrong


def test_changed_labels_are_found():
    rows, wrong = mislabeled_rows()
    texts, labels = zip(*rows, strict=True)
    suspects = find_suspects(texts, labels, np.arange(len(texts)))
    hits = [row["text"] in {texts[index] for index in wrong} for row in suspects.worst]
    # Wrong labels of which the model is uncertain are not found.
    assert sum(hits) >= 5 and suspects.n_suspects == len(suspects.worst) <= 12 and hits[0]
    assert suspects.worst[0]["probability"] > 0.5 > suspects.worst[0]["label_probability"]
    assert suspects.rows == 600 and suspects.accuracy > 0.9
    reversed_rows = find_suspects(texts[::-1], labels[::-1], np.arange(len(texts)))
    assert [row["text"] for row in reversed_rows.worst] == [
        row["text"] for row in suspects.worst
    ]  # the order does not matter


def test_the_note_says_why_nothing_was_checked():
    assert find_suspects(["a"], ["x"], np.arange(1)).note == "there are too few training rows"
    numbers = [f"{n}{n}" for n in range(60)]
    assert "no words in common" in find_suspects(numbers, ["x", "y"] * 30, np.arange(60)).note
    rare = ["cat dog", "hammer saw"] * 40 + ["cat hammer"]
    assert (
        find_suspects(rare, ["a", "t"] * 40 + ["once"], np.arange(81)).n_suspects == 0
    )  # the model cannot know a class with one row


def test_bad_rows_by_reason(tmp_path):
    assert count_bad_rows(tmp_path) == []
    rows = [{"path": "/d/a.csv", "row": n, "reason": "empty text" if n % 3 else "not JSON", "text": None if n % 3 else "{<b>", "label": "x"} for n in range(9)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / QUARANTINE)
    first, second = count_bad_rows(tmp_path)
    assert (first["reason"], first["rows"], second["rows"]) == ("empty text", 6, 3)
    assert second["examples"][0] == {"path": "a.csv", "row": 0, "text": "{<b>"} and len(first["examples"]) == 3
    assert first["examples"][0]["text"] == "x"


def collect(rows, labels):
    """Return the facts about rows, with made-up bad and removed rows."""
    groups, train = group_duplicates(rows.texts), rows.rows_of("train")
    suspects = find_suspects(
        [rows.texts[row] for row in train], [rows.labels[row] for row in train], groups.case[train]
    )
    return DataFacts(
        rows=rows, classes=count_classes(rows, labels), lengths=describe_lengths(rows, 16), max_length=16,
        bad=[{"reason": "not <JSON>", "rows": 2, "examples": [{"path": "a.csv", "row": 3, "text": "<i>"}]}],
        left_out={"deduplicate": 4}, files_left_out={".<b>": {"files": 2, "examples": ["a/<i>.<b>"]}}, duplicates=count_duplicates(rows, groups), repeated=find_repeated(rows, groups),
        contradictions=find_contradictions(rows, groups), leaks=find_leaks(rows, groups), not_compared=groups.not_compared,
        suspects=suspects, words=find_typical_words(rows),
    )  # fmt: skip


class FakePrepared:
    """The attributes of prepared data that the page reads."""

    def __init__(self, folder):
        from trainer.contract.contract import Contract

        self.folder = folder
        self.contract = Contract(task="t", columns={"text": "<t>"}, steps=[], fitted={}, files={})


@pytest.mark.slow
def test_the_page_is_offline_and_escaped(tmp_path):
    wrong, _ = mislabeled_rows()
    nasty = [("train", f"<script>alert({n})</script>", "$a_{$") for n in range(3)] + [
        ("test", "<script>alert(1)</script>", "x\\$")
    ]
    rows = all_rows(*(("train", text, label) for text, label in wrong), *nasty)
    data_facts = collect(rows, [*WORDS, "$a_{$", "x\\$"])
    write_data_page(
        tmp_path / "data.html", data_facts, title="<demo>", prepared=FakePrepared(tmp_path), spec_text="a: <x>"
    )
    text = (tmp_path / "data.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 1 and "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert not re.search(r'(src|href)="(?!#|data:)', text)  # nothing is fetched
    for word in (
        "Labels that look wrong",
        "not &lt;JSON&gt;",
        "a.csv, row 3",
        "Rows left out by your steps",
        "&lt;demo&gt;",
    ):
        assert word in text, word
    for anchor in re.findall(r'href="#(\w+)"', text):
        assert f'id="{anchor}"' in text
    findings = [finding.text for finding in list_findings(data_facts)]
    assert "1 test row is also in train: the test metrics are too optimistic" in findings
    assert any("wrong to a simple model" in finding for finding in findings)
    assert any("more than one label" in finding for finding in findings)
    summary = data_facts.summary()
    assert summary["leaks"]["train in test"] == {"exact": 1, "case": 0, "near": 0}
    assert summary["rows"] == {"train": 603, "validation": 0, "test": 1} and summary["duplicates"]["train"]["case"] == 0


@pytest.mark.slow
def test_many_classes_are_drawn_without_names_and_shown_from_both_ends(tmp_path):
    rows = all_rows(*(("train", f"text {n} of this class", f"label_{n % 400}") for n in range(400)))
    data_facts = collect(rows, [f"label_{n}" for n in range(400)])
    assert "label_3" not in draw_class_sizes(data_facts.classes)
    write_data_page(tmp_path / "data.html", data_facts, title="many", prepared=FakePrepared(tmp_path))
    assert "100 classes between" in (tmp_path / "data.html").read_text(encoding="utf-8")


def test_files_that_are_left_out_are_listed(tmp_path):
    data_facts = collect(all_rows(("train", "text a", "x"), ("test", "text b", "x")), ["x"])
    write_data_page(tmp_path / "data.html", data_facts, title="t", prepared=FakePrepared(tmp_path))
    text = (tmp_path / "data.html").read_text(encoding="utf-8")
    assert "Files left out" in text and "a/&lt;i&gt;.&lt;b&gt;" in text and "<i>" not in text
    assert "2 files hold no rows (2 .<b>)" in " ".join(finding.text for finding in list_findings(data_facts))
    assert data_facts.summary()["files_left_out"][".<b>"]["files"] == 2


def test_rows_without_problems_give_one_good_finding():
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]
    rows = all_rows(*((part, f"{words[n]} {words[n - 1]} {part}", "ab"[n % 2]) for n in range(6) for part in PARTS))
    data_facts = collect(rows, ["a", "b"])._replace(bad=[], files_left_out={})
    assert [finding.grade for finding in list_findings(data_facts)] == ["good"]
