"""Preparation with Ray Data writes the same bytes as in one process; a stream has the rows that were counted."""

import json
from pathlib import Path

import pytest

from cluster.errors import DataError
from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.data.prepare import prepare as preparing
from trainer.tasks.load_spec import load_spec
from trainer.training.stream import stream_training_rows


def prepare(spec, tmp_path, *, with_ray):
    return preparing.prepare_rows(spec, lambda progress: None, tmp_path / "quarantine.parquet", with_ray=with_ray)


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_both_ways_write_the_same_bytes(tiny_base, tmp_path):
    rows = make_text_rows(40_000, seed=1)
    write_csv(tmp_path / "train1.csv", [*rows[:25_000], ("", "tool"), rows[7]])
    (tmp_path / "train2.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows[25_000:]) + "{\n"
    )
    steps = ["normalize", {"deduplicate": {"near": 0.9}}, {"sample": {"fraction": 0.9}}]
    data = {"train": str(tmp_path / "train*"), "steps": steps}
    both = []
    for with_ray in (False, True):
        spec = load_spec({**tiny_spec(tiny_base, tmp_path, tmp_path / f"storage{with_ray:d}"), "data": data})
        both.append(prepare(spec, tmp_path, with_ray=with_ray))
    local, with_ray = (read_files(prepared.folder) for prepared in both)
    assert local == with_ray and len(local) > 8
    assert both[0].folder.name == both[1].folder.name
    assert both[0].summary["quarantined"] == {"empty text": 1, "not JSON": 1}
    assert len(both[0].summary["shards"]) == 3


def test_a_missing_column_is_named_from_inside_a_worker(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", make_text_rows(30, 1), header=("txt", "label"))
    spec = load_spec({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {"train": str(tmp_path / "train.csv")}})
    with pytest.raises(DataError, match="no column 'text' for the text"):
        prepare(spec, tmp_path, with_ray=True)


@pytest.mark.parametrize(
    ("split", "steps"), [({}, []), ({"by": "group", "column": "who"}, [{"sample": {"fraction": 0.7}}])]
)
def test_a_stream_has_the_rows_that_were_counted_and_no_others(tiny_base, tmp_path, split, steps):
    rows = [(text, label, f"user {n % 50}") for n, (text, label) in enumerate(make_text_rows(400, seed=2))]
    write_csv(tmp_path / "train.csv", [*rows, ("", "tool", "x")], header=("text", "label", "who"))
    data = {"train": str(tmp_path / "train.csv"), "split": {**split, "stratify": False}, "steps": ["normalize", *steps]}
    spec, streamed = (
        load_spec({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": {**data, "mode": mode}})
        for mode in ("prepared", "streaming")
    )
    full, streaming = prepare(spec, tmp_path, with_ray=False), prepare(streamed, tmp_path, with_ray=False)
    assert streaming.summary["rows"] == full.summary["rows"]
    assert streaming.summary["rows_by_class"] == full.summary["rows_by_class"]
    assert streaming.summary["left_out"] == full.summary["left_out"]
    assert streaming.contract.fingerprint == full.contract.fingerprint
    for part in ("validation", "test"):
        assert streaming.part(part).raw("text") == full.part(part).raw("text")
    assert len(streaming.part("train")) == 0
    rows = stream_training_rows(streamed, streaming).take_all()
    train = full.part("train")
    expected = [(train.inputs(row).tolist(), int(train.targets[row])) for row in range(len(train))]
    assert sorted((list(row["inputs"]), row["target"]) for row in rows) == sorted(expected)
