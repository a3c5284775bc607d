"""The report on data: equal texts, leaks, doubtful labels, and a page that opens offline whatever texts hold."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from support.tiny_text import WORDS, make_text_rows
from trainer.data.folder import QUARANTINE
from trainer.report import data_charts, data_facts, data_page, suspects, twins
from trainer.report.data_facts import AllRows


def all_rows(*rows):
    """(part, text, label) of each row."""
    parts = np.array([data_facts.PARTS.index(part) for part, _, _ in rows], np.int8)
    texts = [text for _, text, _ in rows]
    return AllRows(texts, [label for _, _, label in rows], parts, np.array([len(text.split()) for text in texts]))


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
    assert twins.fold("Don't  STOP,me—now!") == "dont stop me now"
    assert twins.fold("???") == "???"
    assert twins.fold("हिन्दी।") == "हिन्दी"  # signs that belong to letters stay
    found = twins.duplicates(ROWS, twins.find(ROWS.texts))
    assert found[0] == {"part": "train", "exact": 1, "case": 1, "near": 0}
    assert found[2] == {"part": "test", "exact": 0, "case": 0, "near": 0}


def test_leaks_count_each_row_once_by_its_surest_degree():
    into_test, into_validation, between = twins.leaks(ROWS, twins.find(ROWS.texts))
    assert (into_test["of"], into_test["into"], into_test["rows"]) == ("train", "test", 3)
    assert (into_test["exact"], into_test["case"], into_test["near"]) == (1, 1, 1)
    near = into_test["examples"][-1]
    assert (near["degree"], near["other"], near["label"], near["other_label"]) == ("near", LONG, "freeze", "arrival")
    assert into_validation["rows"] == between["rows"] == 0


def test_the_same_text_under_two_labels():
    (found,) = twins.contradictions(ROWS, twins.find(ROWS.texts))
    assert found == {"text": "Freeze it!", "labels": [("freeze", 2), ("arrival", 1)]}
    repeated = twins.repeated(ROWS, twins.find(ROWS.texts))
    assert {entry["rows"] for entry in repeated} == {2} and repeated[0]["texts"]


def test_classes_lengths_and_words():
    first, second = data_facts.classes(ROWS, ["freeze", "arrival"])
    assert (first["label"], first["train"], first["validation"], first["test"]) == ("freeze", 2, 1, 3)
    assert second["rows"] == 5 and first["share"] + second["share"] == 1.0
    train = data_facts.lengths(ROWS, 4)[0]
    assert (train["longest"], train["at_limit"], train["median"]) == (16, 0.5, 3.0)
    words = data_facts.typical_words(all_rows(*(("train", text, label) for text, label in make_text_rows(300, seed=3))))
    assert all(set(words[label][:3]) <= set(WORDS[label]) for label in WORDS)


def wrongly_labelled():
    rows = make_text_rows(600, seed=5)
    wrong = set(range(0, 600, 60))
    other = {"fruit": "tool", "tool": "animal", "animal": "fruit"}
    return [(text, other[label] if at in wrong else label) for at, (text, label) in enumerate(rows)], wrong


def test_labels_that_were_changed_are_found():
    rows, wrong = wrongly_labelled()
    texts, labels = zip(*rows, strict=True)
    found = suspects.find(texts, labels, np.arange(len(texts)))
    hits = [row["text"] in {texts[at] for at in wrong} for row in found.worst]
    assert sum(hits) >= 5 and found.found == len(found.worst) <= 12 and hits[0]  # it misses the unsure ones
    assert found.worst[0]["probability"] > 0.5 > found.worst[0]["given"]
    assert found.rows == 600 and found.accuracy > 0.9
    turned = suspects.find(texts[::-1], labels[::-1], np.arange(len(texts)))
    assert [row["text"] for row in turned.worst] == [row["text"] for row in found.worst]  # the order does not matter


def test_where_there_is_nothing_to_compare_it_is_said():
    assert suspects.find(["a"], ["x"], np.arange(1)).note == "too few training rows"
    numbers = [f"{n}{n}" for n in range(60)]
    assert "no words in common" in suspects.find(numbers, ["x", "y"] * 30, np.arange(60)).note
    rare = ["cat dog", "hammer saw"] * 40 + ["cat hammer"]
    assert (
        suspects.find(rare, ["a", "t"] * 40 + ["once"], np.arange(81)).found == 0
    )  # of a class with one row nothing is known


def test_bad_rows_by_reason(tmp_path):
    assert data_facts.bad_rows(tmp_path) == []
    rows = [{"path": "/d/a.csv", "row": n, "reason": "empty text" if n % 3 else "not JSON", "text": None if n % 3 else "{<b>", "label": "x"} for n in range(9)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / QUARANTINE)
    first, second = data_facts.bad_rows(tmp_path)
    assert (first["reason"], first["rows"], second["rows"]) == ("empty text", 6, 3)
    assert second["examples"][0] == {"path": "a.csv", "row": 0, "text": "{<b>"} and len(first["examples"]) == 3
    assert first["examples"][0]["text"] == "x"


def facts(rows, labels):
    same, train = twins.find(rows.texts), rows.of("train")
    doubts = suspects.find([rows.texts[at] for at in train], [rows.labels[at] for at in train], same.case[train])
    return data_page.Facts(
        rows=rows, classes=data_facts.classes(rows, labels), lengths=data_facts.lengths(rows, 16), max_length=16,
        bad=[{"reason": "not <JSON>", "rows": 2, "examples": [{"path": "a.csv", "row": 3, "text": "<i>"}]}],
        left_out={"deduplicate": 4}, duplicates=twins.duplicates(rows, same), repeated=twins.repeated(rows, same),
        contradictions=twins.contradictions(rows, same), leaks=twins.leaks(rows, same), not_compared=same.left_out,
        suspects=doubts, words=data_facts.typical_words(rows),
    )  # fmt: skip


class Folder:
    """As much of prepared data as the page names."""

    def __init__(self, folder):
        from trainer.contract.contract import Contract

        self.folder = folder
        self.contract = Contract(task="t", columns={"text": "<t>"}, steps=[], fitted={}, files={})


def test_the_page_is_offline_and_escaped(tmp_path):
    wrong, _ = wrongly_labelled()
    nasty = [("train", f"<script>alert({n})</script>", "$a_{$") for n in range(3)] + [
        ("test", "<script>alert(1)</script>", "x\\$")
    ]
    rows = all_rows(*(("train", text, label) for text, label in wrong), *nasty)
    found = facts(rows, [*WORDS, "$a_{$", "x\\$"])
    data_page.write(tmp_path / "data.html", found, title="<demo>", prepared=Folder(tmp_path), spec_text="a: <x>")
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
    said = [entry["text"] for entry in data_page.findings(found)]
    assert "Test holds 1 row that train has too: figures on them flatter" in said
    assert any("doubtful label" in line for line in said) and any("more than one label" in line for line in said)
    summary = found.summary()
    assert summary["leaks"]["train in test"] == {"exact": 1, "case": 0, "near": 0}
    assert summary["rows"] == {"train": 603, "validation": 0, "test": 1} and summary["duplicates"]["train"]["case"] == 0


def test_many_classes_are_drawn_without_names_and_shown_from_both_ends(tmp_path):
    rows = all_rows(*(("train", f"text {n} of this class", f"label_{n % 400}") for n in range(800)))
    found = facts(rows, [f"label_{n}" for n in range(400)])
    assert "label_3" not in data_charts.class_sizes(found.classes)
    data_page.write(tmp_path / "data.html", found, title="many", prepared=Folder(tmp_path))
    assert "100 classes between" in (tmp_path / "data.html").read_text(encoding="utf-8")


def test_rows_without_a_finding_say_so():
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]
    rows = all_rows(
        *((part, f"{words[n]} {words[n - 1]} {part}", "ab"[n % 2]) for n in range(6) for part in data_facts.PARTS)
    )
    found = facts(rows, ["a", "b"])._replace(bad=[])
    assert [entry["grade"] for entry in data_page.findings(found)] == ["good"]
