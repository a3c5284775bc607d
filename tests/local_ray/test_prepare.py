"""Preparation with Ray Data: right rows in right parts, made once, and every bad row accounted for."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import make_rows, tiny_spec, write_csv

from cluster.errors import DataError
from trainer.data import prepare as preparing
from trainer.spec_load import load


def prepare(spec, tmp_path):
    return preparing.prepare(load(spec), lambda progress: None, tmp_path / "quarantine.parquet")


def test_every_row_once_in_its_part_with_its_tokens(tiny_base, tiny_data, tmp_path):
    prepared = prepare(tiny_spec(tiny_base, tiny_data, tmp_path), tmp_path)
    parts = {name: prepared.part(name) for name in ("train", "validation", "test")}
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 216, "validation": 24, "test": 210}
    everything = sorted(text for name in ("train", "validation") for text in parts[name].raw("text"))
    assert everything == sorted(text for text, _ in make_rows(240, seed=1))
    assert parts["test"].raw("text") == [text for text, _ in make_rows(210, seed=2)]
    assert np.bincount(parts["validation"].target_ids).tolist() == [8, 8, 8]
    from trainer import tasks

    encode = tasks.get("text-classification").encoder(prepared.contract, prepared.folder)
    for name, rows in parts.items():
        expected = encode(rows.raw("text"))
        for at in range(len(rows)):
            assert np.array_equal(rows.input_ids(at), expected[at]), name
            assert rows.lengths[at] == len(expected[at])
    labels = prepared.contract.fitted["labels"]
    assert [labels[target] for target in parts["test"].target_ids] == parts["test"].raw("label")


def test_made_once_found_again_and_named_by_the_fingerprint(tiny_base, tiny_data, tmp_path):
    spec = tiny_spec(tiny_base, tiny_data, tmp_path)
    assert preparing.find(load(spec)) is None
    first = prepare(spec, tmp_path)
    assert first.folder.name.startswith(first.contract.fingerprint[:16])
    stamp = (first.folder / "index.arrow").stat().st_mtime_ns
    assert preparing.find(load(spec)).folder == first.folder
    assert prepare(spec, tmp_path).folder == first.folder
    assert (first.folder / "index.arrow").stat().st_mtime_ns == stamp
    other = prepare({**spec, "data": {**spec["data"], "max_length": 8}}, tmp_path)
    assert other.folder != first.folder and other.contract.fingerprint != first.contract.fingerprint
    assert [path.name for path in (tmp_path / "prepared").iterdir() if path.name.startswith(".")] == []


def test_formats_and_several_files_give_the_same_rows(tiny_base, tmp_path):
    rows = make_rows(90, seed=3)
    write_csv(tmp_path / "all.csv", rows)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in rows[:40]))
    pq.write_table(
        pa.table({"text": [t for t, _ in rows[40:]], "label": [c for _, c in rows[40:]]}), tmp_path / "b.parquet"
    )
    found = []
    for given in (str(tmp_path / "all.csv"), [str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")]):
        prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": given}}, tmp_path)
        found.append(
            (prepared.contract.fingerprint, [prepared.part(p).raw("text") for p in ("train", "validation", "test")])
        )
    assert found[0] == found[1]
    assert [len(part) for part in found[0][1]] == [72, 9, 9]


def test_bad_rows_are_listed_and_the_rest_is_used(tiny_base, tmp_path):
    rows = [*make_rows(200, seed=4), ("", "tool"), ("  ", "fruit"), ("no label", "")]
    write_csv(tmp_path / "train.csv", rows)
    spec = {
        **tiny_spec(tiny_base, tmp_path, tmp_path),
        "data": {"train": str(tmp_path / "train.csv"), "max_bad_fraction": 0.05},
    }
    prepared = prepare(spec, tmp_path)
    assert prepared.summary["quarantined"] == {"empty text": 2, "empty label": 1}
    assert sum(prepared.summary["rows"].values()) == 200
    listed = pq.read_table(prepared.folder / "quarantine.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in listed] == [
        (201, "empty text"),
        (202, "empty text"),
        (203, "empty label"),
    ]
    assert {row["path"] for row in listed} == {str(tmp_path / "train.csv")}


def test_too_many_bad_rows_stop_the_run_and_are_kept(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", [*make_rows(20, seed=4), ("", "tool")])
    spec = {**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": str(tmp_path / "train.csv")}}
    with pytest.raises(DataError, match=r"1 of 21 rows cannot be used \(empty text: 1\)") as caught:
        prepare(spec, tmp_path)
    assert "row 21 of" in str(caught.value)
    assert pq.read_table(tmp_path / "quarantine.parquet").num_rows == 1
    assert list((tmp_path / "prepared").iterdir()) == []


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([("a b", "x")] * 30, None, "have 1 class"),
        ([("a", "x"), ("b", "y")], None, "no row is left for validation"),
        (
            make_rows(60, 1),
            [("a cat", "animal"), ("a car", "vehicle")],
            "1 test rows have a label that no training row has: 'vehicle'",
        ),
    ],
)
def test_data_that_cannot_be_learned_from(tiny_base, tmp_path, train, test, message):
    data = {"train": str(write_csv(tmp_path / "train.csv", train))}
    if test:
        data["test"] = str(write_csv(tmp_path / "test.csv", test))
    with pytest.raises(DataError, match=message):
        prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)


def test_a_missing_column_is_named_from_inside_a_worker(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", make_rows(30, 1), header=("txt", "label"))
    with pytest.raises(DataError, match="no column 'text' for the text"):
        prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": str(tmp_path / "train.csv")}}, tmp_path)


def test_a_damaged_prepared_folder_is_named(tiny_base, tiny_data, tmp_path):
    spec = tiny_spec(tiny_base, tiny_data, tmp_path)
    prepared = prepare(spec, tmp_path)
    shard = next((prepared.folder / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="is damaged"):
        preparing.find(load(spec)).part("train")
