"""One table in every format and compression: the same rows are read, in blocks of one size."""

import bz2
import csv
import datetime as dt
import gzip
import json
import lzma
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import DataError
from trainer.data.readers import columnar, delimited, jsonl
from trainer.data.readers.blocks import BLOCK_SIZE
from trainer.data.readers.read import BLOCK_ROWS, read_blocks
from trainer.data.sources.source_files import find_source_files

COLUMNS = {"text": "body", "label": "kind"}
ROWS = [(f'text {n}, "quoted"\nand\tmore é', f"k{n % 3}") for n in range(20)]


def rows_of(path, columns=COLUMNS, loose=frozenset()):
    [file] = find_source_files(str(path), "train")
    return pa.concat_tables(read_blocks(file, columns, loose)).to_pylist()


def write(path, rows, row_group=None):
    """Write (text, kind) rows in the format of the path's ending."""
    table = pa.table({"id": list(range(len(rows))), "body": [row[0] for row in rows], "kind": [row[1] for row in rows]})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=row_group)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path))
    elif path.suffix in (".arrow", ".ipc"):
        new = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=row_group)
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps({"body": body, "kind": kind}) + "\n" for body, kind in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("body", "kind"), *rows])


def compress(content, ending):
    if ending in (".zst", ".lz4"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, {".zst": "zstd", ".lz4": "lz4"}[ending]) as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending](content)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".ipc"])
def test_every_format_gives_the_same_rows(tmp_path, ending):
    path = tmp_path / f"rows{ending}"
    write(path, ROWS)
    expected = [{"row": n, "text": text, "label": kind, "reason": None} for n, (text, kind) in enumerate(ROWS, 1)]
    assert rows_of(path) == expected


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst", ".lz4"])
@pytest.mark.parametrize("kind", [".csv", ".jsonl"])
def test_compressed_files(tmp_path, kind, ending):
    plain, compressed = tmp_path / f"rows{kind}", tmp_path / f"rows{kind}{ending}"
    write(plain, ROWS)
    compressed.write_bytes(compress(plain.read_bytes(), ending))
    assert rows_of(compressed) == rows_of(plain)


COMPRESSIONS = [".gz", ".bz2", ".xz", ".zst", ".lz4"]
# pyarrow writes the last two without a checksum, so not every wrong bit is detected.
DAMAGED = [(damage, ending) for damage in ("cut", "not compressed") for ending in COMPRESSIONS]
DAMAGED += [("one wrong bit", ending) for ending in COMPRESSIONS[:3]]


@pytest.mark.parametrize(("damage", "ending"), DAMAGED)
def test_damaged_compressed_files(tmp_path, damage, ending):
    path = tmp_path / f"rows.csv{ending}"
    content = ("body,kind\n" + "".join(f"text {n * 7919 % 1000},k{n}\n" for n in range(5000))).encode()
    compressed = bytearray(compress(content, ending))
    if damage == "cut":
        compressed = compressed[:-12]
    elif damage == "not compressed":
        compressed = bytearray(content)
    else:
        compressed[len(compressed) // 2] ^= 0x10
    path.write_bytes(compressed)
    with pytest.raises(DataError, match="rows.csv.* is not a complete"):
        rows_of(path)


def test_compressed_parquet_is_rejected(tmp_path):
    (tmp_path / "rows.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(DataError, match="is a compressed parquet file"):
        find_source_files(str(tmp_path / "rows.parquet.gz"), "train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "row_group"), [(".csv", None), (".jsonl", None), (".parquet", 999), (".arrow", 40_000), (".ipc", 7)]
)
def test_blocks_have_one_size_whatever_the_row_groups(tmp_path, ending, row_group):
    path = tmp_path / f"rows{ending}"
    write(path, [(f"text {n}", "k") for n in range(2 * BLOCK_ROWS + 5)], row_group)
    [file] = find_source_files(str(path), "train")
    blocks = list(read_blocks(file, COLUMNS))
    assert [len(block) for block in blocks] == [BLOCK_ROWS, BLOCK_ROWS, 5]
    assert [block["row"][0].as_py() for block in blocks] == [1, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 1]
    assert blocks[2]["text"].to_pylist()[0] == f"text {2 * BLOCK_ROWS}"


SMALLER = BLOCK_SIZE // 8
LONG = [(f"{n} " + "x" * (20_000 + n % 7), f"k{n % 3}") for n in range(250)]


@pytest.fixture
def smaller_blocks(monkeypatch):
    """Cut blocks at 2 MB instead of 16, so that a test writes and reads less."""
    for reader in (columnar, delimited, jsonl):
        monkeypatch.setattr(reader, "BLOCK_SIZE", SMALLER)


@pytest.mark.parametrize(
    ("ending", "groups"),
    [(".csv", [None]), (".jsonl", [None]), (".parquet", [None, 1, 90]), (".arrow", [None, 40]), (".ipc", [190])],
)
def test_long_rows_make_shorter_blocks_by_the_rows_alone(tmp_path, smaller_blocks, ending, groups):
    """Blocks have about the same size, whatever the row groups, and no row or row number is lost."""
    cuts = set()
    for group in groups:
        path = tmp_path / f"rows{ending}"
        write(path, LONG, group)
        [file] = find_source_files(str(path), "train")
        blocks = list(read_blocks(file, COLUMNS))
        cuts.add(tuple(len(block) for block in blocks))
        assert [number for block in blocks for number in block["row"].to_pylist()] == list(range(1, 251))
        assert [text for block in blocks for text in block["text"].to_pylist()] == [text for text, _ in LONG]
    [cut] = cuts
    assert len(cut) == 3
    for n_rows in cut[:-1]:
        assert SMALLER - 100_000 < n_rows * 20_008 < SMALLER + 100_000


def test_a_row_larger_than_a_block_ends_its_block(tmp_path, smaller_blocks):
    rows = [("a", "x"), ("b" * (SMALLER + 1), "x"), ("c", "x"), ("d", "x")]
    for ending in (".jsonl", ".parquet", ".arrow"):
        write(tmp_path / f"rows{ending}", rows)
        [file] = find_source_files(str(tmp_path / f"rows{ending}"), "train")
        assert [block["row"].to_pylist() for block in read_blocks(file, COLUMNS)] == [[1, 2], [3, 4]]


def test_the_lines_of_a_csv_file_are_counted_in_chunks(tmp_path, smaller_blocks):
    """Lines are read in chunks, so a block may end a chunk late, but always at the same row."""
    write(tmp_path / "rows.csv", [("x" * (SMALLER // 2 + n), "k") for n in range(6)])
    [file] = find_source_files(str(tmp_path / "rows.csv"), "train")
    assert [block["row"].to_pylist() for block in read_blocks(file, COLUMNS)] == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_type_of_text_is_cut_into_the_same_blocks(tmp_path, kind):
    texts = pa.array([None if n % 5 == 4 else f"{n % 50} " + "x" * 20_000 for n in range(2000)])
    table = pa.table({"body": texts.cast(kind), "kind": pa.array(["k"] * 2000).cast(kind)})
    for name, rows_each in (("a", 2000), ("b", 333)):
        with pa.OSFile(str(tmp_path / f"{name}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows_each)
        [file] = find_source_files(str(tmp_path / f"{name}.arrow"), "train")
        assert [len(block) for block in read_blocks(file, COLUMNS)] == [1048, 952]


def test_only_columns_that_are_read_count_for_the_size_of_a_block(tmp_path):
    table = pa.table({"body": ["a"] * 2000, "kind": ["k"] * 2000, "other": ["x" * 20_000] * 2000})
    pq.write_table(table, tmp_path / "a.parquet")
    [file] = find_source_files(str(tmp_path / "a.parquet"), "train")
    assert [len(block) for block in read_blocks(file, COLUMNS)] == [2000]


def test_loose_roles_take_any_single_value_and_agree_across_formats(tmp_path):
    moment = dt.datetime(2026, 3, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    table = pa.table(
        {
            "body": ["a", "b"],
            "integer": pa.array([3, None]),
            "decimal": [1.0, 2.5],
            "flag": [True, None],
            "day": [dt.date(2026, 3, 1), None],
            "at": [moment, None],
            "plain": [dt.datetime(2026, 3, 1, 12, 0, 0, 500_000), None],
            "word": ["x", ""],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    lines = [
        {"body": "a", "integer": 3, "decimal": 1.0, "flag": True, "day": "2026-03-01", "at": "2026-03-01T10:00:00Z"}
        | {"plain": "2026-03-01T12:00:00.500000", "word": "x"},
        {"body": "b", "decimal": 2.5, "flag": None, "word": ""},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows([{**lines[0], "decimal": "1", "flag": "true"}, lines[1]])
    loose = frozenset(table.column_names[1:])
    columns = {"text": "body", **{name: name for name in loose}}
    by_format = [rows_of(tmp_path / name, columns, loose) for name in ("a.parquet", "a.jsonl", "a.csv")]
    first = {"integer": "3", "decimal": "1", "flag": "true", "day": "2026-03-01", "at": "2026-03-01T10:00:00Z"} | {
        "plain": "2026-03-01T12:00:00.500000",
        "word": "x",
    }
    assert by_format[0] == by_format[1] == by_format[2]
    assert by_format[0][0] == {"row": 1, "text": "a", "reason": None, **first}
    assert by_format[0][1] == {"row": 2, "text": "b", "reason": None, **dict.fromkeys(loose), "decimal": "2.5"}


def test_a_list_of_tags_is_read_as_json(tmp_path):
    pq.write_table(
        pa.table({"body": ["a", "b", "c"], "tags": pa.array([["x", "y"], [], None], pa.list_(pa.string()))}),
        tmp_path / "a.parquet",
    )
    (tmp_path / "a.jsonl").write_text('{"body": "a", "tags": ["x", "y"]}\n{"body": "b", "tags": []}\n{"body": "c"}\n')
    columns = {"text": "body", "labels": "tags"}
    by_format = [rows_of(tmp_path / name, columns, frozenset({"labels"})) for name in ("a.parquet", "a.jsonl")]
    assert by_format[0] == by_format[1]
    assert [(row["labels"], row["reason"]) for row in by_format[0]] == [
        ('["x", "y"]', None),
        ("[]", None),
        (None, None),
    ]


def test_a_loose_role_takes_no_list(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "a", "g": [1]}\n{"body": "b", "g": 1}\n')
    rows = rows_of(tmp_path / "a.jsonl", {"text": "body", "group": "g"}, frozenset({"group"}))
    assert [row["reason"] for row in rows] == ["group holds a list; one value is needed", None]


def test_reasons_name_a_feature_by_its_column(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"age": [1]}\n{"age": {"a": 1}}\n')
    rows = rows_of(tmp_path / "a.jsonl", {"feature.age": "age"}, frozenset({"feature.age"}))
    reasons = ["age holds a list; one value is needed", "age holds an object; one value is needed"]
    assert [row["reason"] for row in rows] == reasons


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(max_size=5)), min_size=1, max_size=30))
def test_any_text_in_quotes_comes_back(rows):
    """Line ends and quotes come back too; only a NUL makes a row bad."""
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [("body", "kind"), *rows]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes("".join(line + "\r\n" for line in quoted).encode("utf-8"))
        read = rows_of(path)
    assert [row["row"] for row in read] == list(range(1, len(rows) + 1))
    for row, (text, kind) in zip(read, rows, strict=True):
        has_nul = "\0" in text + kind
        assert (row["text"], row["label"]) == (text.replace("\0", "\ufffd"), kind.replace("\0", "\ufffd"))
        assert row["reason"] == ("NUL character" if has_nul else None)


@settings(max_examples=60, deadline=None)
@given(
    st.binary(min_size=1, max_size=400), st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ".csv.gz"])
)
def test_any_bytes_are_rows_or_one_clear_error(content, ending):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{ending}"
        path.write_bytes(b"body,kind\n" + content if ending == ".csv" else content)
        try:
            rows = rows_of(path)
        except DataError:
            return
    assert rows and all(row["reason"] or (row["text"] is not None and row["label"] is not None) for row in rows)
