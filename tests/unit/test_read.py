"""Reading raw files: every row is yielded with its number, and with the reason if it cannot be used."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from trainer.data.readers.read import read_blocks
from trainer.data.sources.source_files import check_named_once, digest_files, find_source_files

COLUMNS = {"text": "body", "label": "kind"}


def rows_of(path):
    [file] = find_source_files(str(path), "train")
    blocks = list(read_blocks(file, COLUMNS))
    return sorted(pa.concat_tables(blocks).to_pylist(), key=lambda row: row["row"])


def test_csv_with_quotes_newlines_torn_rows_and_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'body,kind,extra\na,x,1\n"b\nsays ""hi""",y,2\none,two\nc\xff,z,3\nNA,null,4\n')
    rows = rows_of(path)
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[1]["text"] == 'b\nsays "hi"' and rows[1]["reason"] is None
    assert rows[2]["reason"] == "wrong number of cells" and rows[2]["text"] == "one,two"
    assert rows[3]["reason"] == "invalid UTF-8"
    assert (rows[4]["text"], rows[4]["label"], rows[4]["reason"]) == ("NA", "null", None)  # words, not missing values


def test_jsonl_gives_each_bad_line_its_reason(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"body": "a", "kind": 1}\n\nnope\n{"body": 3, "kind": "x"}\n[1]\n{"body": "\xff"}\n'
        b'{"body": "b", "kind": true}\n{"body": "c"}\n'
    )
    rows = {row["row"]: row for row in rows_of(path)}
    assert rows[1]["text"] == "a" and rows[1]["label"] == "1"
    assert rows[3]["reason"] == "not JSON"
    assert rows[4]["reason"] == "text is not text"
    assert rows[5]["reason"] == "not a JSON object"
    assert rows[6]["reason"] == "invalid UTF-8"
    assert rows[7]["label"] == "true" and rows[7]["reason"] is None
    assert (rows[8]["label"], rows[8]["reason"]) == (None, "missing label")


def test_jsonl_with_a_key_twice_half_a_character_and_a_nul(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"body": "a", "body": "b", "kind": "x"}\n'
        '{"body": "a", "kind": "x", "other": {"k": 1, "k": 2}}\n'
        '{"body": "half \\ud83d", "kind": "x"}\n'
        '{"body": "nul \\u0000", "kind": "x"}\n'
        '{"body": "a", "kind": null}\n'
        '{"body": "a", "kind": 1.5}\n'
        '{"body": "a", "kind": "x"} {"body": "b", "kind": "x"}\n'
        '{"body": "a", "kind": {"deep": [1]}}\n' + "[" * 100_000 + "\n"
    )
    rows = rows_of(path)
    assert [row["reason"] for row in rows] == [
        "a key twice",
        None,
        "invalid UTF-8",
        "NUL character",
        "missing label",
        None,
        "not JSON",
        "label holds an object; one value is needed",
        "not JSON",
    ]
    assert rows[2]["text"] == "half \ufffd" and rows[3]["text"] == "nul \ufffd"
    assert rows[7]["label"] == '{"deep": [1]}' and len(rows[8]["text"]) == 1000


def test_a_nul_in_csv_makes_only_its_own_row_bad(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"body,kind,note\na\0b,x,1\na,x,\0\nc,y,2\n")
    rows = rows_of(path)
    assert [(row["text"], row["reason"]) for row in rows] == [("a\ufffdb", "NUL character"), ("a", None), ("c", None)]


def test_parquet_with_whole_numbers_as_labels(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"body": ["a", None], "kind": [3, 4]}), path)
    rows = rows_of(path)
    assert [(row["text"], row["label"], row["reason"]) for row in rows] == [
        ("a", "3", None),
        (None, "4", "missing text"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"body,kind\n", "holds no rows"),
        ("a.csv", b"bodi,kind\na,b\n", "no column 'body' for the text"),
        ("a.jsonl", b'{"bodi": "a", "kind": "b"}\n', "no column 'body'"),
        ("a.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ("a.txt", b"hello\n", "format is not known"),
        ("a.csv", b"body,body,kind\na,b,c\n", "2 columns called 'body'"),
        (
            "a.csv",
            b'body,kind\n"never closed,x\nb,y\nc,z\n',
            "row 1, which begins at line 2, is not valid csv: .*; it reads",
        ),
        ("a.csv", b'body,kind\n"a"b,x\n', "is not valid csv"),
        ("a.csv", gzip.compress(b"body,kind\na,b\n", mtime=0), "is a gzip file: it begins with"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        rows_of(tmp_path / name)
    assert str(caught.value).encode() and "\n" not in caught.value.problem  # it can be shown, and is one line


def test_parquet_of_the_wrong_type(tmp_path):
    pq.write_table(pa.table({"body": [1.5], "kind": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="holds double, not text"):
        rows_of(tmp_path / "a.parquet")


def test_files_that_do_not_exist(tmp_path):
    (tmp_path / "train.csv").write_text("a\n")
    (tmp_path / "empty").mkdir()
    for source, message in [
        (str(tmp_path / "trian.csv"), r"no such file \(did you mean 'train.csv'"),
        (str(tmp_path / "*.jsonl"), "matches no file"),
        (str(tmp_path / "empty"), "is a folder without rows"),
        ([], "names no file"),
    ]:
        with pytest.raises(DataError, match=message):
            find_source_files(source, "train")


def test_the_digest_goes_by_content_not_by_name(tmp_path):
    for name, text in [("a.csv", "x"), ("b.csv", "x"), ("c.csv", "y")]:
        (tmp_path / name).write_text(text)
    a, b, c = (digest_files(find_source_files(str(tmp_path / name), "train")) for name in ("a.csv", "b.csv", "c.csv"))
    assert a == b != c


def test_a_quote_that_swallows_half_a_file_makes_one_bad_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('body,kind\na,x\n"b' + "".join(f"{n},y\n" for n in range(2000)) + 'c",z\nd,x\n')
    rows = rows_of(path)
    assert [(row["row"], row["reason"]) for row in rows] == [(1, None), (2, "over 1000 lines in one cell"), (3, None)]


def test_row_numbers_stay_right_past_the_first_block(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"text {n},k" for n in range(1, 40_001)]
    lines[30_000] = "torn"
    path.write_text("body,kind\n" + "\n".join(lines) + "\n")
    rows = rows_of(path)
    assert [row["row"] for row in rows] == list(range(1, 40_001))
    assert rows[30_000]["reason"] == "wrong number of cells" and rows[39_999]["text"] == "text 40000"


def test_other_columns_do_not_matter(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,body,kind,note\n1,a,x,\nb2,b,y,late\n")
    assert [row["text"] for row in rows_of(path)] == ["a", "b"]


def test_a_file_named_twice_is_rejected(tmp_path):
    (tmp_path / "train.csv").write_text("body,kind\na,x\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "train.csv")
    train = find_source_files(str(tmp_path / "train.csv"), "train")
    for again in ("train.csv", "link.csv"):
        with pytest.raises(DataError, match="in data.train and again in data.test"):
            check_named_once([*train, *find_source_files(str(tmp_path / again), "test", first_index=1)])


def test_a_folder_of_texts_inside_another_is_rejected(tmp_path):
    for name in ("pos/one.txt", "pos/sub/two.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a")
    outer, inner = find_source_files(str(tmp_path), "train"), find_source_files(str(tmp_path / "pos"), "test")
    for files in ([*outer, *inner], [*inner, *outer]):
        with pytest.raises(DataError, match="and again in"):
            check_named_once(files)


@pytest.mark.parametrize(
    ("role", "fix"),
    [
        ("text", "did you mean 'body'? Set `data.columns: {text: NAME}`"),
        ("group", "Set `data.split.column: NAME`"),
        ("time", "Set `data.split.column: NAME`"),
        ("feature.bodi", "Write the column's exact name in `data.features`"),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_missing_column_is_named_with_the_key_that_names_it(tmp_path, role, fix, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table({"body": ["a"]}), path)
    else:
        path.write_text("body\na\n" if ending == ".csv" else '{"body": "a"}\n')
    [file] = find_source_files(str(path), "train")
    with pytest.raises(DataError, match="no column 'bodi' " + ("" if "." in role else f"for the {role} ")) as caught:
        list(read_blocks(file, {role: "bodi"}, frozenset({role})))
    assert f"{fix}, or rename the column in the file" in caught.value.fix


def test_a_nul_far_into_a_file_makes_its_row_bad(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"text {n},k" for n in range(40_000)]
    lines[20_000] = "nu\0l,k"
    path.write_text("body,kind\n" + "\n".join(lines) + "\n")
    bad = [row for row in rows_of(path) if row["reason"]]
    assert [(row["row"], row["text"], row["reason"]) for row in bad] == [(20_001, "nu\ufffdl", "NUL character")]
