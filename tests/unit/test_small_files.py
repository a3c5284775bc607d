"""Many small files are read together, and give the rows that one file with the same rows gives."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.data.prepare import passes
from trainer.data.prepare.prepare import prepare_rows
from trainer.data.readers.file_groups import group_files, read_group
from trainer.data.readers.read_options import ReadOptions
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.source_files import find_source_files
from trainer.tasks.load_spec import load_spec

PARTS = ("train", "validation", "test")
OPTIONS = ReadOptions({"text": "text", "label": "label"})


def source(number, size=100, part="train", file_format="csv"):
    return SourceFile(f"{number}.csv", file_format, part, number, size=size)


def test_only_small_neighbors_of_one_part_are_read_together():
    files = [source(n) for n in range(3)]
    files += [source(3, size=1 << 20), source(4), source(5, part="test"), source(6, part="test")]
    files += [source(7, file_format="text"), source(8, size=1 << 40)]
    groups = [[file.number for file in group] for group in group_files(files, OPTIONS)]
    assert groups == [[0, 1, 2], [3], [4], [5, 6], [7], [8]]
    images = ReadOptions({"image": "file", "label": "label"}, binary=frozenset({"image"}))
    assert len(group_files(files, images)) == len(files)
    many = [source(n, size=60 << 10) for n in range(40)]
    assert [len(group) for group in group_files(many, OPTIONS)] == [9, 9, 9, 9, 4]
    assert [len(group) for group in group_files([source(n, size=1) for n in range(2500)], OPTIONS)] == [1000, 1000, 500]


def test_a_file_survives_being_sent_as_json(tmp_path):
    (tmp_path / "label=x").mkdir()
    write_csv(tmp_path / "label=x/a.csv", [("a", "x")])
    for file in find_source_files(str(tmp_path), "train"):
        assert SourceFile(**json.loads(json.dumps(file._asdict()))) == file and file.partition == {"label": "x"}


def spread(folder, rows, n_files):
    """Write the rows to files of all formats; some files have no rows."""
    folder.mkdir()
    size = -(-len(rows) // n_files)
    for number in range(n_files):
        part = rows[number * size : (number + 1) * size]
        name = folder / f"{number:03d}"
        if number % 3 == 0:
            write_csv(name.with_suffix(".csv"), part)
        elif number % 3 == 1:
            pq.write_table(
                pa.table({"label": [label for _, label in part], "text": [text for text, _ in part]}),
                name.with_suffix(".parquet"),
            )
        else:
            lines = (json.dumps({"text": text, "label": label}) for text, label in part)
            name.with_suffix(".jsonl").write_text("".join(f"{line}\n" for line in lines))
    write_csv(folder / "0999.csv", [])
    return [str(folder / f"*.{ending}") for ending in ("csv", "parquet", "jsonl")]


@pytest.fixture(scope="module")
def spread_rows(tiny_base, tmp_path_factory):
    """(spec of one file, spec of 31 files, its prepared rows) with the same rows in another order, two of them bad."""
    folder = tmp_path_factory.mktemp("spread")
    rows = [*make_text_rows(200, seed=1), ("", "bad"), *make_text_rows(40, seed=3), ("no label", "")]
    write_csv(folder / "one.csv", rows)
    sources = spread(folder / "many", rows, 31)
    spec = tiny_spec(tiny_base, folder, folder)
    data = {**spec["data"], "max_bad_fraction": 0.5}
    data.pop("test", None)
    one = {**spec, "data": {**data, "train": str(folder / "one.csv")}}
    many = {**spec, "data": {**data, "train": sources}}
    prepared = prepare_rows(load_spec(many), lambda progress: None, folder / "quarantine.parquet")
    return one, many, prepared


def test_small_files_give_the_rows_of_one_file(spread_rows, tmp_path):
    one, _, many = spread_rows
    alone = prepare_rows(load_spec(one), lambda progress: None, tmp_path / "quarantine.parquet")
    assert many.contract.fingerprint == alone.contract.fingerprint
    assert len(list((many.folder / "shards").iterdir())) == 1
    assert many.summary["rows"] == alone.summary["rows"] and many.summary["quarantined"] == alone.summary["quarantined"]
    for part in PARTS:  # a row's part goes by its content, not by its file
        rows = [sorted(zip(p.part(part).raw("text"), p.part(part).raw("label"), strict=True)) for p in (many, alone)]
        assert rows[0] == rows[1]


def test_rows_of_small_files_keep_their_file_and_number(spread_rows):
    _, many, prepared = spread_rows
    files = find_source_files(many["data"]["train"], "train")
    expected = {}
    for file in files:
        for block in read_group([file], OPTIONS):
            for row in block.to_pylist():
                expected[file.path, row["row"]] = row["text"]
    texts = prepared.part("train").raw("text")
    for row, text in enumerate(texts):
        path, _, number = prepared.source("train", row).rpartition(", row ")
        assert expected[path, int(number)] == text
    bad = pq.read_table(prepared.folder / "quarantine.parquet").to_pylist()
    assert {Path(row["path"]).suffix for row in bad} <= {".csv", ".jsonl", ".parquet"} and len(bad) >= 2
    assert all((expected[row["path"], row["row"]] or "") == (row["text"] or "") for row in bad)


def test_this_process_and_ray_cut_the_same_blocks(spread_rows):
    _, many, _ = spread_rows
    files = find_source_files(many["data"]["train"], "train")
    [group] = group_files(files, OPTIONS)
    [block] = read_group(group, OPTIONS, passes.read_file_blocks)
    item = json.dumps([file._asdict() for file in group])
    [packed] = passes._ReadFiles(OPTIONS)(pa.table({"item": [item]}))
    [(rows, number, _)] = passes.unpack_blocks(packed)
    assert rows.equals(block) and number == group[0].number == 0
