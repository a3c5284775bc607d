"""Preparation: each row is in its part, rows are prepared once, and every row that is not used is listed."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError, ResourceError, SpecError
from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.data.arrow import write_ipc
from trainer.data.prepare.prepare import find_prepared, prepare_rows
from trainer.tasks.catalog import get_task
from trainer.tasks.load_spec import load_spec

PARTS = ("train", "validation", "test")


def prepare(spec, tmp_path):
    return prepare_rows(load_spec(spec), lambda progress: None, tmp_path / "quarantine.parquet")


@pytest.fixture(scope="module")
def tiny_prepared(tiny_base, tiny_data, tmp_path_factory):
    """The 240 training rows and the 210 test rows of `tiny_data`, prepared."""
    folder = tmp_path_factory.mktemp("tiny_prepared")
    return prepare(tiny_spec(tiny_base, tiny_data, folder), folder)


def test_every_row_is_in_one_part(tiny_prepared):
    train, validation, test = (tiny_prepared.part(name).raw("text") for name in PARTS)
    assert len(train) + len(validation) == 240
    assert 10 <= len(validation) <= 40
    assert len(test) == 210
    assert sorted(train + validation) == sorted(text for text, _ in make_text_rows(240, seed=1))
    assert test == [text for text, _ in make_text_rows(210, seed=2)]


def test_every_class_has_validation_rows(tiny_prepared):
    assert np.bincount(tiny_prepared.part("validation").targets).min() >= 1


@pytest.mark.parametrize("part", PARTS)
def test_every_row_has_its_tokens(tiny_prepared, part):
    encode = get_task("text-classification").encoder(tiny_prepared.contract, tiny_prepared.folder)
    rows = tiny_prepared.part(part)
    expected = encode({"text": rows.raw("text")}).inputs
    for row in range(len(rows)):
        assert np.array_equal(rows.inputs(row), expected[row])
        assert rows.lengths[row] == len(expected[row])


def test_targets_are_the_labels(tiny_prepared):
    labels = tiny_prepared.contract.fitted["labels"]
    test = tiny_prepared.part("test")
    assert [labels[target] for target in test.targets] == test.raw("label")


def test_rows_are_prepared_once_in_a_folder_named_by_the_fingerprint(tiny_base, tiny_data, tmp_path):
    spec = tiny_spec(tiny_base, tiny_data, tmp_path)
    assert find_prepared(load_spec(spec)) is None
    first = prepare(spec, tmp_path)
    assert first.folder.name.startswith(first.contract.fingerprint[:16])
    stamp = (first.folder / "index.arrow").stat().st_mtime_ns
    assert find_prepared(load_spec(spec)).folder == first.folder
    assert prepare(spec, tmp_path).folder == first.folder
    assert (first.folder / "index.arrow").stat().st_mtime_ns == stamp
    other = prepare({**spec, "data": {**spec["data"], "max_length": 8}}, tmp_path)
    assert other.folder != first.folder and other.contract.fingerprint != first.contract.fingerprint
    assert [path.name for path in (tmp_path / "prepared").iterdir() if path.name.startswith(".")] == []


def test_formats_and_several_files_give_the_same_rows(tiny_base, tmp_path):
    rows = make_text_rows(90, seed=3)
    write_csv(tmp_path / "all.csv", rows)
    objects = [{"text": text, "label": label} for text, label in rows]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects[:40]))
    pq.write_table(pa.Table.from_pylist(objects[40:]), tmp_path / "b.parquet")

    def prepare_from(files):
        return prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": files}}, tmp_path)

    one_file = prepare_from(str(tmp_path / "all.csv"))
    two_files = prepare_from([str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")])
    assert one_file.contract.fingerprint == two_files.contract.fingerprint
    texts = [one_file.part(part).raw("text") for part in PARTS]
    assert texts == [two_files.part(part).raw("text") for part in PARTS]
    assert sum(len(part) for part in texts) == 90


def test_bad_rows_are_listed_and_the_others_are_used(tiny_base, tmp_path):
    rows = [*make_text_rows(200, seed=4), ("", "tool"), ("  ", "fruit"), ("no label", "")]
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


def test_too_many_bad_rows_stop_the_run_and_are_listed(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", [*make_text_rows(20, seed=4), ("", "tool")])
    spec = {**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": str(tmp_path / "train.csv")}}
    with pytest.raises(DataError, match=r"1 of 21 rows cannot be used \(empty text: 1\)") as caught:
        prepare(spec, tmp_path)
    assert "row 21 of" in str(caught.value)
    assert pq.read_table(tmp_path / "quarantine.parquet").num_rows == 1
    assert list((tmp_path / "prepared").iterdir()) == []


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([("a b", "x")] * 30, None, "at least 2 classes; classes in the training rows: x"),
        ([("a", "x"), ("b", "y")], None, "no row is left for validation"),
        (
            make_text_rows(60, 1),
            [("a cat", "animal"), ("a car", "vehicle")],
            "1 of 62 rows cannot be used .unknown label: 1.",
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
    write_csv(tmp_path / "train.csv", make_text_rows(30, 1), header=("txt", "label"))
    with pytest.raises(DataError, match="no column 'text' for the text"):
        prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": str(tmp_path / "train.csv")}}, tmp_path)


def test_a_damaged_prepared_folder_is_named(tiny_base, tiny_data, tmp_path):
    spec = tiny_spec(tiny_base, tiny_data, tmp_path)
    prepared = prepare(spec, tmp_path)
    shard = next((prepared.folder / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="is damaged"):
        find_prepared(load_spec(spec)).part("train")


def test_the_order_and_the_files_of_rows_change_neither_fingerprint_nor_parts(tiny_base, tmp_path):
    rows = make_text_rows(300, seed=3)
    write_csv(tmp_path / "a.csv", rows)
    (tmp_path / "elsewhere").mkdir()
    write_csv(tmp_path / "elsewhere" / "1.csv", rows[::-1][:120])
    write_csv(tmp_path / "elsewhere" / "2.csv", rows[::-1][120:])
    results = []
    for pattern in ("a.csv", "elsewhere/*.csv"):
        prepared = prepare(
            {**tiny_spec(tiny_base, tmp_path, tmp_path / pattern[0]), "data": {"train": str(tmp_path / pattern)}},
            tmp_path,
        )
        parts = {name: sorted(prepared.part(name).raw("text")) for name in ("train", "validation", "test")}
        results.append((prepared.contract.fingerprint, parts))
    assert results[0] == results[1]


def test_adding_rows_moves_no_row_to_another_part(tiny_base, tmp_path):
    def parts_of(rows, **split):
        write_csv(tmp_path / "train.csv", rows)
        data = {"train": str(tmp_path / "train.csv"), "split": split}
        prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
        return {text: name for name in ("train", "validation", "test") for text in prepared.part(name).raw("text")}

    rows = make_text_rows(900, seed=3)
    for split in ({}, {"seed": 5}, {"validation": 0.2, "test": 0.3}):
        before, after = parts_of(rows[:300], **split), parts_of(rows, **split)
        assert all(after[text] == part for text, part in before.items())
        assert set(after.values()) == {"train", "validation", "test"}


def test_groups_stay_together_and_the_newest_rows_are_held_out(tiny_base, tmp_path):
    rows = [
        {"text": text, "label": label, "who": f"user {n % 40}", "at": f"2026-01-{1 + n // 10:02d}T00:00:0{n % 10}Z"}
        for n, (text, label) in enumerate(make_text_rows(300, seed=5))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    user_of, time_of = ({row["text"]: row[key] for row in rows} for key in ("who", "at"))

    def parts_of(split):
        data = {"train": str(tmp_path / "rows.jsonl"), "split": split}
        prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
        return [prepared.part(name).raw("text") for name in ("train", "validation", "test")]

    groups = [{user_of[text] for text in part} for part in parts_of({"by": "group", "column": "who", "test": 0.2})]
    assert sum(map(len, groups)) == 40 and all(groups)
    for split in (
        {"by": "time", "column": "at"},
        {"by": "time", "column": "at", "validation_from": "2026-01-25", "test_from": "2026-01-28T00:00:00+00:00"},
    ):
        train, validation, test = ([time_of[text] for text in part] for part in parts_of(split))
        assert max(train) < min(validation) <= max(validation) < min(test)
        assert [len(train), len(validation), len(test)] == [240, 30, 30]


def test_a_missing_or_unreadable_time_makes_a_bad_row(tiny_base, tmp_path):
    rows = [{"text": t, "label": c, "at": "2026-01-01"} for t, c in make_text_rows(60, 5)]
    rows[3]["at"], rows[7]["at"] = None, "yesterday"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"by": "time", "column": "at", "validation_from": "2026-01-01", "test_from": "2026-02-01"}
    data = {"train": str(tmp_path / "rows.jsonl"), "split": split}
    with pytest.raises(DataError, match=r"at: … is not an ISO 8601 time: 1, missing at: 1"):
        prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)


def test_stratify_puts_every_class_into_every_part(tiny_base, tmp_path):
    rows = [(f"{word} {n}", label) for label, word in (("a", "cat"), ("b", "dog"), ("c", "pig")) for n in range(6)]
    for seed in range(5):
        write_csv(tmp_path / "train.csv", rows)
        data = {"train": str(tmp_path / "train.csv"), "split": {"seed": seed, "stratify": True}}
        prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
        assert all(min(counts) >= 1 for counts in prepared.summary["rows_by_class"].values())
        assert sum(prepared.summary["rows"].values()) == 18


def test_columns_of_features_are_checked_and_profiled(tiny_base, tmp_path):
    rows = [
        {"text": text, "label": label, "age": 20 + n % 50, "country": "DE" if n % 4 else None, "since": "2026-01-02"}
        for n, (text, label) in enumerate(make_text_rows(200, seed=9))
    ]
    rows[5]["age"], rows[6]["age"] = "old", None
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    features = {"age": "numeric", "country": {"kind": "categorical", "encode": "hash"}, "since": "date"}
    data = {"train": str(tmp_path / "rows.jsonl"), "features": features}
    prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
    assert prepared.summary["quarantined"] == {"age: … is not a number": 1}
    assert pq.read_table(tmp_path / "quarantine.parquet")["reason"].to_pylist() == ["age: 'old' is not a number"]
    age, country, since = prepared.feature_profile["columns"]
    train = prepared.summary["rows"]["train"]
    assert age["rows"] == country["rows"] == train and age["quantiles"][0] == 20 and age["quantiles"][-1] == 69
    assert country["top"] == ["DE"] and 0.15 < country["missing"] / train < 0.35
    assert since["first"].startswith("2026-01-02")
    plain = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": data["train"]}}, tmp_path)
    assert plain.feature_profile == {} and plain.contract.fingerprint == prepared.contract.fingerprint


def test_a_full_disk_is_reported():
    with pytest.raises(ResourceError, match="/dev/full cannot be written"):
        write_ipc(pa.table({"a": ["text"] * 10_000}), Path("/dev/full"))


def test_rows_with_a_label_that_has_no_training_row_are_bad(tiny_base, tmp_path):
    rows = [
        {"text": t, "label": c, "at": f"2026-01-{1 + n // 5:02d}"} for n, (t, c) in enumerate(make_text_rows(100, 5))
    ]
    rows += [{"text": f"late {n}", "label": "new", "at": "2026-02-01"} for n in range(3)]
    rows += [{"text": "a torn one", "label": label, "at": "2026-01-03"} for label in ("odd", "even")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": str(tmp_path / "rows.jsonl"), "max_bad_fraction": 0.1, "split": {"by": "time", "column": "at"}}
    prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
    assert prepared.contract.fitted["labels"] == ["animal", "fruit", "tool"]
    assert prepared.summary["quarantined"] == {"unknown label": 5}
    assert sum(prepared.summary["rows"].values()) == 100


def test_allowed_duplicates_do_not_leak_into_a_held_out_part(tiny_base, tmp_path):
    rows = [
        {"text": t, "label": c, "at": f"2026-01-{1 + n // 5:02d}"} for n, (t, c) in enumerate(make_text_rows(100, 5))
    ]
    rows[95]["text"], rows[95]["label"] = rows[3]["text"], rows[3]["label"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"by": "time", "column": "at"}
    data = {"train": str(tmp_path / "rows.jsonl"), "allow_issues": ["duplicate"], "split": split}
    prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
    assert prepared.summary["quarantined"] == {"also in train": 1}


def test_every_run_gets_the_list_of_bad_rows(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", [*make_text_rows(300, seed=6), ("", "tool")])
    spec = {**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": str(tmp_path / "train.csv")}}
    for run in ("one", "two"):
        prepare_rows(load_spec(spec), lambda progress: None, tmp_path / run / "quarantine.parquet")
        assert pq.read_table(tmp_path / run / "quarantine.parquet").num_rows == 1


def test_the_same_bytes_under_another_ending_are_another_file(tiny_base, tmp_path):
    content = write_csv(tmp_path / "train.csv", make_text_rows(90, seed=6)).read_bytes()
    (tmp_path / "train.csv.gz").write_bytes(content)
    for name, is_damaged in (("train.csv", False), ("train.csv.gz", True)):
        spec = {**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": str(tmp_path / name)}}
        if is_damaged:
            with pytest.raises(DataError, match="is not a complete gzip"):
                prepare(spec, tmp_path)
        else:
            prepare(spec, tmp_path)


@pytest.mark.parametrize(
    ("split", "part_files", "message"),
    [
        (
            {"by": "time", "column": "at", "validation_from": "2026-01-01", "test_from": "2026-02-01"},
            ["test"],
            "exclude each other",
        ),
        ({"by": "group", "column": "who"}, ["test", "validation"], "nothing to split by group"),
        ({"by": "group", "column": "who", "stratify": True}, [], "stratify: true works only with by: content"),
    ],
)
def test_a_split_without_an_effect_is_rejected(split, part_files, message):
    data = {"train": "a.csv", "split": split, **{part: f"{part}.csv" for part in part_files}}
    with pytest.raises(SpecError, match=message):
        load_spec({"name": "a", "data": data, "model": {"base": "x/y"}})
