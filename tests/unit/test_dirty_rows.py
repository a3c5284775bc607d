"""A deliberately dirty file: every kind of damage is listed with its reason and row number; the other rows are used."""

import json
import sys

import pyarrow.parquet as pq
import pytest

from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.data.prepare.prepare import prepare_rows
from trainer.data.prepare.quarantine import TooManyBadRows
from trainer.tasks.load_spec import load_spec

GOOD = make_text_rows(40, seed=8)
NEAR = "please tell me now if my hammer is here at home, since i really want a new one for it and a good one"


def line(text, label="tool", **more):
    return json.dumps({"text": text, "label": label, **more}).encode()


# Each kind of damage: the lines in the file, each with the reason that it must get.
DAMAGE = {
    "no text at all": [(b'{"label": "tool"}', "missing text")],
    "text null": [(line(None), "missing text")],
    "text empty": [(line(""), "empty text")],
    "text of white space": [(line(" \t\n "), "empty text")],
    "text without a visible character": [(line("\u200b\u2060\u00ad"), "no visible character")],
    "no label at all": [(b'{"text": "a saw"}', "missing label")],
    "label empty": [(line("a drill", ""), "empty label")],
    "label not among the declared": [(line("a car", "vehicle"), "unknown label")],
    "text a number": [(line(17), "text is not text")],
    "text a list": [(line(["a", "b"]), "text is not text")],
    "label a number that no class has": [(line("a wrench", 0.5), "unknown label")],
    "label an object": [(line("a chisel", {"is": "tool"}), "label holds an object; one value is needed")],
    "bytes that are not UTF-8": [(b'{"text": "caf\xe9", "label": "tool"}', "invalid UTF-8")],
    "half a surrogate pair": [(b'{"text": "a \\ud83d", "label": "tool"}', "invalid UTF-8")],
    "a line cut off": [(b'{"text": "a cla', "not JSON")],
    "a line that is not an object": [(b'["a clamp", "tool"]', "not a JSON object")],
    "a key given twice": [(b'{"text": "one", "text": "other", "label": "tool"}', "a key twice")],
    "a NUL character": [(line("a\x00b"), "NUL character")],
    "far too long": [(line("hammer " * 300), "text over 500 characters")],
    "the same row again": [(line("really one new level"), None), (line("really one new level"), "duplicate")],
    "one text, two labels": [
        (line("it is for my axe"), "contradicting labels"),
        (line("it is for my axe", "fruit"), "contradicting labels"),
    ],
    "almost the same row": [(line(NEAR), None), (line(NEAR.replace("a new", "one new")), "near-duplicate")],
    "nothing but tags": [(line("<p><br></p>"), "empty after cleaning")],
    "a text that the user's function rejects": [(line("TOP SECRET saw"), "refused by own_steps:clean")],
    "a text on which the user's function fails": [(line("explode the saw"), "own_steps:clean raised RuntimeError")],
}


@pytest.fixture
def dirty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_steps.py").write_text(
        "def clean(text):\n    if 'explode' in text:\n        raise RuntimeError\n    return None if 'SECRET' in text else text\n"
    )
    lines = [line(text, label) for text, label in GOOD]
    expected = {}
    for pairs in DAMAGE.values():
        for content, reason in pairs:
            lines.append(content)
            if reason:
                expected[len(lines)] = reason
    (tmp_path / "dirty.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    yield expected
    sys.modules.pop("own_steps", None)
    sys.path.remove(str(tmp_path))


def spec_of(base, folder, **data):
    steps = ["strip_html", "own_steps:clean", {"deduplicate": {"near": 0.8}}]
    labels = ["animal", "fruit", "tool"]
    settings = {"train": str(folder / "dirty.jsonl"), "labels": labels, "max_chars": 500, "steps": steps, **data}
    return load_spec({**tiny_spec(base, folder, folder / "storage"), "data": settings})


def test_every_kind_of_damage_is_found(tiny_base, tmp_path, dirty):
    assert len(DAMAGE) == 25
    quarantine = tmp_path / "quarantine.parquet"
    prepared = prepare_rows(spec_of(tiny_base, tmp_path, max_bad_fraction=0.9), lambda progress: None, quarantine)
    listed = {row["row"]: row for row in pq.read_table(quarantine).to_pylist()}
    assert {number: row["reason"] for number, row in listed.items()} == dirty
    assert {row["path"] for row in listed.values()} == {str(tmp_path / "dirty.jsonl")}
    summary = prepared.summary
    assert sum(summary["rows"].values()) == len(GOOD) + 2
    assert summary["left_out"] == {"duplicate": 1, "near-duplicate": 1}
    bad = sum(summary["quarantined"].values())
    assert (
        sum(summary["rows"].values()) + bad + 2 == summary["rows_in_all"] == len(GOOD) + sum(map(len, DAMAGE.values()))
    )
    assert listed[min(dirty)]["label"] == "tool" and listed[min(dirty) + 2]["text"] == ""


def test_too_many_bad_rows_stop_the_run_with_a_table(tiny_base, tmp_path, dirty):
    with pytest.raises(TooManyBadRows) as caught:
        prepare_rows(spec_of(tiny_base, tmp_path), lambda progress: None, tmp_path / "quarantine.parquet")
    assert caught.value.by_reason["missing text"] == 2
    assert sum(caught.value.by_reason.values()) == len(dirty) - 2  # two more are left out by a step
    assert pq.read_table(tmp_path / "quarantine.parquet").num_rows == len(dirty)


def test_held_out_rows_that_are_also_in_train_are_bad(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", GOOD)
    write_csv(tmp_path / "validation.csv", [("a new apple", "fruit"), GOOD[0]])
    write_csv(tmp_path / "test.csv", [GOOD[3], ("a good pig", "animal"), ("a new apple", "fruit"), GOOD[5]])
    files = {part: str(tmp_path / f"{part}.csv") for part in ("train", "validation", "test")}
    spec = {**tiny_spec(tiny_base, tmp_path, tmp_path / "storage"), "data": {**files, "max_bad_fraction": 0.2}}
    prepared = prepare_rows(load_spec(spec), lambda progress: None, tmp_path / "quarantine.parquet")
    assert prepared.summary["quarantined"] == {"also in train": 3, "also in validation": 1}
    assert prepared.part("test").raw("text") == ["a good pig"]
    spec["data"]["allow_issues"] = ["also in train", "also in validation"]
    prepared = prepare_rows(load_spec(spec), lambda progress: None, tmp_path / "quarantine.parquet")
    assert prepared.summary["rows"] == {"train": 40, "validation": 2, "test": 4}
