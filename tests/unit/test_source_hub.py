"""Datasets that `datasets` saved, and datasets that it loads from the hub."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.errors import DataError
from trainer.data.readers.read import read_blocks
from trainer.data.sources.source_files import find_source_files

COLUMNS = {"text": "text", "label": "label"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows():
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    texts = [f"text {n}" for n in range(10)]
    return datasets.Dataset.from_dict({"text": texts, "label": [0, 1] * 5}, features=features)


def rows_of(files):
    return [row for file in files for block in read_blocks(file, COLUMNS) for row in block.to_pylist()]


def test_a_saved_dataset_in_several_files(rows, tmp_path):
    rows.save_to_disk(tmp_path / "saved", num_shards=3)
    files = find_source_files(str(tmp_path / "saved"), "test")
    assert len(files) == 3 and {file.format for file in files} == {"arrow"}
    saved = rows_of(files)
    assert [(row["text"], row["label"]) for row in saved[:2]] == [("text 0", "neg"), ("text 1", "pos")]
    assert len(saved) == 10
    (tmp_path / "saved/data-00001-of-00003.arrow").unlink()
    with pytest.raises(DataError, match="lacks data-00001-of-00003.arrow"):
        find_source_files(str(tmp_path / "saved"), "test")


def test_a_saved_dict_of_datasets_gives_the_split_of_the_part(rows, tmp_path):
    import datasets

    datasets.DatasetDict({"train": rows, "test": rows.select([3, 1])}).save_to_disk(tmp_path / "saved")
    test_rows = rows_of(find_source_files(str(tmp_path / "saved"), "test"))
    assert [row["text"] for row in test_rows] == ["text 3", "text 1"]
    with pytest.raises(DataError, match=r"without a split 'validation' \(it has: train, test\)"):
        find_source_files(str(tmp_path / "saved"), "validation")
    assert len(rows_of(find_source_files(str(tmp_path / "saved/train"), "validation"))) == 10


def test_a_loaded_dataset_becomes_a_snapshot_named_by_its_content(rows, tmp_path):
    source = tmp_path / "reviews"
    source.mkdir()
    rows.to_parquet(source / "train-00000.parquet")
    rows.select([3, 1]).to_parquet(source / "test-00000.parquet")
    [train] = find_source_files(f"hf://{source}", "train", snapshots=tmp_path / "snapshots")
    [again] = find_source_files(f"hf://{source}#train", "test", snapshots=tmp_path / "snapshots")
    [test] = find_source_files(f"hf://{source}:default", "test", snapshots=tmp_path / "snapshots")
    assert train.path == again.path != test.path and train.format == "arrow"
    assert [(row["text"], row["label"]) for row in rows_of([test])] == [("text 3", "pos"), ("text 1", "pos")]
    assert len(list((tmp_path / "snapshots").iterdir())) == 2
    with pytest.raises(DataError, match='Unknown split "validation"'):
        find_source_files(f"hf://{source}", "validation", snapshots=tmp_path / "snapshots")
    with pytest.raises(DataError, match="can only be read for a run"):
        find_source_files(f"hf://{source}", "train")


def test_a_dataset_without_a_local_copy_while_offline(tmp_path):
    with pytest.raises(DataError, match="hub cannot be reached") as caught:
        find_source_files("hf://nobody/nothing", "train", snapshots=tmp_path)
    assert "\n" not in caught.value.problem
    with pytest.raises(DataError, match="is not a valid name on the hub"):
        find_source_files("hf://", "train", snapshots=tmp_path)


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_reported_at_once(tmp_path):
    code = (
        "from pathlib import Path; from trainer.data.sources.source_files import find_source_files\n"
        f"find_source_files('hf://nobody/nothing', 'train', snapshots=Path({str(tmp_path)!r}))"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30)
    assert "hub cannot be reached" in done.stderr and done.returncode == 1


def test_metadata_of_other_writers_is_ignored(tmp_path):
    for metadata in ({b"huggingface": b"no json"}, {b"huggingface": b'{"info": []}'}, {b"other": b"x"}):
        table = pa.table({"text": ["a"], "label": ["x"]}).replace_schema_metadata(metadata)
        with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        assert rows_of(find_source_files(str(tmp_path / "a.arrow"), "train"))[0]["label"] == "x"
