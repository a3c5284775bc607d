"""Parquet and Arrow files: types that hold text, bytes that are not text, and classes by number."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from trainer.data.readers.read import read_blocks
from trainer.data.sources.source_files import find_source_files

COLUMNS = {"text": "text", "label": "label"}
BAD = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\x02\0\0\0\x03\0\0\0"), pa.py_buffer(b"\xff\xfea"))


def write(table, path):
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


def rows_of(path):
    [file] = find_source_files(str(path), "train")
    return pa.concat_tables(read_blocks(file, COLUMNS)).to_pylist()


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    ids=["string", "large_string", "string_view", "dictionary"],
)
def test_every_type_that_holds_text(tmp_path, kind, ending):
    table = pa.table({"text": pa.array(["a", None, "é"]).cast(kind), "label": pa.array(["x", "x", "y"]).cast(kind)})
    write(table, tmp_path / f"a{ending}")
    values = [(row["text"], row["label"], row["reason"]) for row in rows_of(tmp_path / f"a{ending}")]
    assert values == [("a", "x", None), (None, "x", "missing text"), ("é", "y", None)]


BAD_COLUMNS = {
    "string": BAD,
    "large_string": BAD.cast(pa.binary()).cast(pa.large_binary()).view(pa.large_string()),
    "string_view": BAD.view(pa.binary()).cast(pa.binary_view()).view(pa.string_view()),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), BAD, safe=False),
}
# pyarrow's own reader rejects a Parquet file with such bytes in a dictionary column.
BAD_FILES = [(kind, ending) for kind in BAD_COLUMNS for ending in (".parquet", ".arrow")]


@pytest.mark.parametrize(("kind", "ending"), [case for case in BAD_FILES if case != ("dictionary", ".parquet")])
def test_bytes_that_are_not_utf8_make_one_bad_row(tmp_path, kind, ending):
    text = BAD_COLUMNS[kind]
    write(pa.table({"text": text, "label": ["x", "y"]}), tmp_path / f"a{ending}")
    values = [(row["text"], row["reason"]) for row in rows_of(tmp_path / f"a{ending}")]
    assert values == [("\ufffd\ufffd", "invalid UTF-8"), ("a", None)]


def test_a_null_column_is_missing_in_each_row(tmp_path):
    write(pa.table({"text": pa.nulls(2), "label": ["x", "y"]}), tmp_path / "a.arrow")
    assert [row["reason"] for row in rows_of(tmp_path / "a.arrow")] == ["missing text"] * 2


@pytest.mark.parametrize(
    "values", [pa.array([1, 2]), pa.array([{"a": "b"}]), pa.array([["a"], ["b"]]), pa.array([1, 2]).dictionary_encode()]
)
def test_a_column_that_is_not_text(tmp_path, values):
    write(pa.table({"text": values, "label": ["x", "y"][: len(values)]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'text' for the text holds .*, not text"):
        rows_of(tmp_path / "a.parquet")


def test_labels_by_number_true_false_and_a_dictionary_of_numbers(tmp_path):
    for label, expected in [
        (pa.array([3, 4]), ["3", "4"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([7, 8]).dictionary_encode(), ["7", "8"]),
    ]:
        write(pa.table({"text": ["a", "b"], "label": label}), tmp_path / "a.arrow")
        assert [row["label"] for row in rows_of(tmp_path / "a.arrow")] == expected


def test_classes_by_number_get_their_names(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    labels = [(row["label"], row["reason"]) for row in rows_of(tmp_path / "a.parquet")]
    assert labels == [("pos", None), ("neg", None), (None, "missing label")]
    beyond = rows.data.table.replace_schema_metadata(rows.features.arrow_schema.metadata)
    beyond = beyond.set_column(1, "label", pa.array([1, 2, None], pa.int64()))
    write(beyond.replace_schema_metadata(rows.features.arrow_schema.metadata), tmp_path / "b.arrow")
    labels = [(row["label"], row["reason"]) for row in rows_of(tmp_path / "b.arrow")]
    assert labels == [("pos", None), (None, "label is not a known class"), (None, "missing label")]


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_damaged_file_is_rows_or_one_clear_error(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write(pa.table({"text": [f"text {n}" for n in range(300)], "label": ["x", "y", "z"] * 100}), path)
    intact = path.read_bytes()
    dice = random.Random(5)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(intact)
        for _ in range(dice.randint(1, 8)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged[: dice.choice([len(damaged), dice.randrange(1, len(damaged))])])
        try:
            outcomes.add(len(rows_of(path)) > 0)
        except DataError:
            outcomes.add(False)
    assert False in outcomes


def test_lists_of_classes_by_number_get_their_names(tmp_path):
    import datasets

    names = datasets.ClassLabel(names=["joy", "anger"])
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Sequence(names)})
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [[1, 0], [], [1]]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    [file] = find_source_files(str(tmp_path / "a.parquet"), "train")
    block = next(read_blocks(file, COLUMNS, frozenset({"label"})))
    assert block["label"].to_pylist() == ['["anger", "joy"]', "[]", '["anger"]']
