"""Reading raw files: every row comes out, with its number, and with the reason if it cannot be used."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from trainer.data import sources
from trainer.data.read import read_blocks

COLUMNS = {"text": "body", "label": "kind"}


def rows_of(path):
    [file] = sources.find(str(path), "train")
    blocks = list(read_blocks(file, COLUMNS))
    return sorted(pa.concat_tables(blocks).to_pylist(), key=lambda row: row["row"])


def test_csv_with_quotes_newlines_torn_rows_and_bytes_that_are_no_utf8(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'body,kind,extra\na,x,1\n"b\nsays ""hi""",y,2\none,two\nc\xff,z,3\nNA,null,4\n')
    rows = rows_of(path)
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[1]["text"] == 'b\nsays "hi"' and rows[1]["reason"] is None
    assert rows[2]["reason"] == "wrong number of cells" and rows[2]["text"] == "one,two"
    assert rows[3]["reason"] == "invalid UTF-8"
    assert (rows[4]["text"], rows[4]["label"], rows[4]["reason"]) == ("NA", "null", None)  # words, not missing values


def test_jsonl_names_each_bad_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"body": "a", "kind": 1}\n\nnope\n{"body": 3, "kind": "x"}\n[1]\n{"body": "\xff"}\n'
        b'{"body": "b", "kind": true}\n{"body": "c"}\n'
    )
    rows = {row["row"]: row for row in rows_of(path)}
    assert rows[1]["text"] == "a" and rows[1]["label"] == "1"
    assert rows[3]["reason"] == "not JSON"
    assert rows[4]["reason"] == "text is no text"
    assert rows[5]["reason"] == "not a JSON object"
    assert rows[6]["reason"] == "invalid UTF-8"
    assert rows[7]["label"] == "true" and rows[7]["reason"] is None
    assert rows[8]["label"] is None  # the task says that it is empty


def test_parquet_with_whole_numbers_as_labels(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"body": ["a", None], "kind": [3, 4]}), path)
    rows = rows_of(path)
    assert [(row["text"], row["label"]) for row in rows] == [("a", "3"), (None, "4")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"body,kind\n", "holds no rows"),
        ("a.csv", b"bodi,kind\na,b\n", "no column 'body' for the text"),
        ("a.jsonl", b'{"bodi": "a", "kind": "b"}\n', "no column 'body'"),
        ("a.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ("a.txt", b"hello\n", "format is not known"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path / name)


def test_parquet_of_the_wrong_type(tmp_path):
    pq.write_table(pa.table({"body": [1.5], "kind": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="holds double, not text"):
        rows_of(tmp_path / "a.parquet")


def test_files_that_are_not_there(tmp_path):
    (tmp_path / "train.csv").write_text("a\n")
    for given, message in [
        (str(tmp_path / "trian.csv"), r"no such file \(did you mean 'train.csv'"),
        (str(tmp_path / "*.jsonl"), "matches no file"),
        (str(tmp_path), "is a folder"),
        ("s3://bucket/a.csv", "only local paths"),
        ([], "names no file"),
    ]:
        with pytest.raises(DataError, match=message):
            sources.find(given, "train")


def test_the_digest_goes_by_content_not_by_name(tmp_path):
    for name, text in [("a.csv", "x"), ("b.csv", "x"), ("c.csv", "y")]:
        (tmp_path / name).write_text(text)
    a, b, c = (sources.digest(sources.find(str(tmp_path / name), "train")) for name in ("a.csv", "b.csv", "c.csv"))
    assert a == b != c
