"""The same rows in every form in which people have files: encodings, separators, quotes, line ends, compressions."""

import bz2
import csv
import gzip
import io
import itertools
import json
import zipfile

import pytest

from cluster.errors import DataError, SpecError
from trainer.data.readers.header import describe_reading, list_columns
from trainer.data.readers.read import read_blocks
from trainer.data.sources.source_files import digest_files, find_source_files
from trainer.spec.format import FormatSpec
from trainer.spec.format_option import read_format

COLUMNS = {"text": "body", "label": "kind"}
#: Texts with every sign that has a meaning in some form of a file.
TEXTS = [
    'für "Möbel", bitte; danke',
    '"go" she said',
    '"all of it is quoted"',
    "a; b, c | d",
    "C:\\new\\table",
    "sep=;",
    "# no comment",
    "line one\nline two",
    "a tab\tin it",
    '5" x 7"',
    "naïve €",
]
ROWS = [(text, "left" if index % 2 else "right") for index, text in enumerate(TEXTS)]
#: Without line ends and tabs: for files that write no quotes.
PLAIN = [row for row in ROWS if not {"\n", "\t"} & set(row[0])]


def delimited(rows, separator, end="\n", **options):
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=separator, lineterminator="\r\n", **options)
    writer.writerow(["body", "kind", "note"])
    writer.writerows([*row, ""] for row in rows)
    return sink.getvalue().replace("\r\n", end)


def raw_tabs(rows, end="\n"):
    return end.join(["body\tkind\tnote", *("\t".join([*row, ""]) for row in rows)]) + end


def json_lines(rows, end="\n"):
    return "".join(json.dumps({"body": text, "kind": label}, ensure_ascii=False) + end for text, label in rows)


def json_array(rows, end="\n"):
    return json.dumps([{"body": text, "kind": label} for text, label in rows], ensure_ascii=False, indent=1).replace(
        "\n", end
    )


#: Name of the file -> (function that writes the rows, the rows that it can write).
FORMS = {
    "comma.csv": (lambda rows, end: delimited(rows, ",", end), ROWS),
    "all_quoted.csv": (lambda rows, end: delimited(rows, ",", end, quoting=csv.QUOTE_ALL), ROWS),
    "semicolon.csv": (lambda rows, end: delimited(rows, ";", end), ROWS),
    "bar.csv": (lambda rows, end: delimited(rows, "|", end), ROWS),
    "tab.csv": (lambda rows, end: delimited(rows, "\t", end), ROWS),
    "excel.csv": (lambda rows, end: f"sep=;{end}" + delimited(rows, ";", end), ROWS),
    "excel_comma.csv": (lambda rows, end: f"sep=,{end}" + delimited(rows, ",", end), ROWS),
    "quoted.tsv": (lambda rows, end: delimited(rows, "\t", end), ROWS),
    "comma.tsv": (lambda rows, end: delimited(rows, ",", end), ROWS),
    "rows.jsonl": (json_lines, ROWS),
    "rows.NDJSON": (json_lines, ROWS),
    "lines.json": (json_lines, ROWS),
    "array.json": (json_array, ROWS),
    "array.jsonl": (json_array, ROWS),
}
#: Name -> (bytes of a text, keys that say it).
ENCODINGS = {
    "utf-8": (lambda text: text.encode(), {}),
    "utf-8 with a mark": (lambda text: text.encode("utf-8-sig"), {}),
    "utf-16 with a mark": (lambda text: text.encode("utf-16"), {}),
    "utf-16 big-endian with a mark": (lambda text: b"\xfe\xff" + text.encode("utf-16-be"), {}),
    "utf-16 without a mark": (lambda text: text.encode("utf-16-le"), {}),
    "utf-32 with a mark": (lambda text: text.encode("utf-32"), {}),
    "cp1252": (lambda text: text.encode("cp1252"), {"encoding": "cp1252"}),
    "utf-8 with a mark, though cp1252 is named": (lambda text: text.encode("utf-8-sig"), {"encoding": "cp1252"}),
}


def zipped(content, name):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(f"__MACOSX/._{name}", b"of the Finder")
        archive.writestr(name, content)
    return sink.getvalue()


COMPRESSIONS = {
    "": lambda content, name: content,
    ".gz": lambda content, name: gzip.compress(content),
    ".bz2": lambda content, name: bz2.compress(content),
    ".zip": zipped,
}


def read(path, file_format="auto", columns=COLUMNS, part="train"):
    reading = read_format(file_format)
    [file] = find_source_files(str(path), part, reading)
    return [row for block in read_blocks(file, columns) for row in block.to_pylist()]


def texts(rows):
    assert [row["reason"] for row in rows] == [None] * len(rows)
    return [(row["text"], row["label"]) for row in rows]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_rows_in_every_form_of_file(tmp_path, encoding):
    encode, keys = ENCODINGS[encoding]
    for (name, (write, rows)), end in itertools.product(FORMS.items(), ("\n", "\r\n", "\r")):
        path = tmp_path / name
        path.write_bytes(encode(write(rows, end)))
        assert texts(read(path, keys)) == rows, (name, repr(end))
        [file] = find_source_files(str(path), "train", read_format(keys))
        assert [column.name for column in list_columns(file)][:2] == ["body", "kind"], (name, repr(end))


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_the_same_rows_compressed(tmp_path, ending):
    for name, (write, rows) in FORMS.items():
        path = tmp_path / f"{name}{ending}"
        path.write_bytes(COMPRESSIONS[ending](write(rows, "\n").encode("utf-16"), name))
        assert texts(read(path)) == rows, name


def test_tabs_without_quotes(tmp_path):
    # A quote is a sign like any other, unless it surrounds a whole cell.
    rows = [row if row[0] != '"all of it is quoted"' else ("all of it is quoted", row[1]) for row in PLAIN]
    for name, encoding in itertools.product(("raw.tsv", "raw.csv", "raw.tab"), ENCODINGS):
        encode, keys = ENCODINGS[encoding]
        (tmp_path / name).write_bytes(encode(raw_tabs(PLAIN)))
        assert texts(read(tmp_path / name, keys)) == rows, (name, encoding)
        assert texts(read(tmp_path / name, {**keys, "quote": "none", "separator": "tab"})) == PLAIN


def test_a_torn_line_between_quotes_takes_no_other_line_with_it(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text(
        'body\tkind\n"open\tx\nhe said "\ty\n"open\ntorn\tz\n"two\nlines"\tx\nlast\t"two\nlines"\n"a ""b"" c"\tw\n'
    )
    rows = read(path)
    assert [(row["text"], row["label"], row["reason"]) for row in rows] == [
        ('"open', "x", None),
        ('he said "', "y", None),
        ('"open', "", "wrong number of cells"),
        ("torn", "z", None),
        ("two\nlines", "x", None),
        ("last", "two\nlines", None),
        ('a "b" c', "w", None),
    ]


def test_exports_of_databases(tmp_path):
    # SELECT ... INTO OUTFILE of MySQL, with and without ENCLOSED BY, and COPY of PostgreSQL.
    (tmp_path / "enclosed.csv").write_text(
        'body,kind\n"she said \\"hi\\", twice",x\n"back\\\\slash",\\N\n"two\\\nlines",y\n'
    )
    (tmp_path / "plain.txt").write_text('she said "hi"\tx\na\\\ttab\tx\nline\\\nend\t\\N\n')
    (tmp_path / "copy.tsv").write_text("body\tkind\na\\ttab\tx\nline\\nend\t\\N\nback\\\\slash\ty\n")
    assert [(row["text"], row["label"]) for row in read(tmp_path / "enclosed.csv", {"escape": "\\"})] == [
        ('she said "hi", twice', "x"),
        ("back\\slash", ""),
        ("two\nlines", "y"),
    ]
    keys = {"kind": "tsv", "quote": "none", "escape": "\\", "header": ["body", "kind"]}
    assert [(row["text"], row["label"]) for row in read(tmp_path / "plain.txt", keys)] == [
        ('she said "hi"', "x"),
        ("a\ttab", "x"),
        ("line\nend", ""),
    ]
    assert [(row["text"], row["label"]) for row in read(tmp_path / "copy.tsv", {"quote": "none", "escape": "\\"})] == [
        ("a\ttab", "x"),
        ("line\nend", ""),
        ("back\\slash", "y"),
    ]
    with pytest.raises(DataError, match="row 1, which begins at line 2.*she said") as caught:
        read(tmp_path / "enclosed.csv")
    assert 'set `data.format: {escape: "\\\\"}`' in caught.value.fix


def test_lines_that_are_no_rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('\n  \n# exported, today\nbody,kind,,\n# "more\na,x\n   \nb,y,,,,\n\nc,z,,\n')
    assert texts(read(path, {"comment": "#"})) == [("a", "x"), ("b", "y"), ("c", "z")]
    path.write_text("Report of May;;\n\nbody;kind\na;x\n")
    assert texts(read(path, {"skip_lines": "1"})) == [("a", "x")]
    path.write_text("body,kind\na,x\n\x1a")
    assert texts(read(path)) == [("a", "x")]
    path.write_text('body,kind\n"a\n# still a",x\n')
    assert texts(read(path, {"comment": "#"})) == [("a\n# still a", "x")]
    path.write_text("a,x\nb,y\n")
    assert texts(read(path, {"header": ["body", "kind"]})) == [("a", "x"), ("b", "y")]


def test_separators_at_the_end_hold_no_cells(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("body,kind\na,x,\nb,y,,\nc,z,no\nd\n")
    assert [row["reason"] for row in read(path)] == [None, None, "wrong number of cells", "wrong number of cells"]
    path.write_text("body,kind,,\na,x\nb,y,,\nc,z,,more\n")
    assert [row["reason"] for row in read(path)] == [None, None, None]


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ("body;kind\n3,5;2,5\n1,0;2,0\n", ";"),
        ("body,kind\na;b,x\nc;d,y\n", ","),
        ("body;note,kind\nx,a\ny,b\n", ","),
        ('body;"kind, or class"\na, b;c\nd;e\n', ";"),
        ("one column only\na; b\nc\n", ","),
        ("body|kind\na|x\nb, c|y\n", "|"),
        ("body;kind\na;x\nb;torn;x\nc, d;y\n", ";"),
        ("body;kind\na;torn;x\nb;torn;x\n", ";"),
        ("body; kind\na;x\nb\nc\nd\n", ","),
    ],
)
def test_a_separator_is_seen_in_the_first_lines(tmp_path, content, separator):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    [file] = find_source_files(str(path), "train")
    assert [column.name for column in list_columns(file)] == next(
        csv.reader([content.splitlines()[0]], delimiter=separator)
    )
    assert (f"separated by {separator!r}" in describe_reading(file)) == (separator != ",")


def test_the_end_of_a_file_does_not_change_how_it_is_read(tmp_path):
    path = tmp_path / "rows.csv"
    start = "body;kind\n" + "a, b;x\n" * 20_000
    path.write_text(start)
    before = read(path)
    path.write_text(start + "torn,row\n" * 30_000 + '\xff;"\n"')
    [file] = find_source_files(str(path), "train")
    after = next(read_blocks(file, COLUMNS)).to_pylist()
    assert after == before[: len(after)]


def test_messages_name_the_cause_with_bytes_or_cells(tmp_path):
    cases = {
        "cp1252.csv": ("body,größe\nfür,x\n".encode("cp1252"), r"is not UTF-8: line 1, byte 7, in b'body,gr\\xf6\\xdfe', which in cp1252 reads 'body,größe'"),
        "noheader.csv": (b"send it back,refund\nwhere is it,parcel\n", r"separated by a comma, and its first line is 'send it back,refund'\n.*header: \[NAME"),
        "colon.csv": (b"body:kind\na:x\n", r"its first line is 'body:kind'\n.*separator: "),
        "only_a_mark.csv": (b"\xff\xfe", "holds no rows"),
        "x.csv": (b"PK\x03\x04" + bytes(30), "is a zip archive or an Excel workbook: it begins with"),
        "y.csv": (b"  <!DOCTYPE html>\n<html>", "is a page of HTML"),
        "z.csv": (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS.*\n.*git lfs pull"),
        "rows.parquet": (b"body,kind\na,x\n", r"cannot be read as parquet.*begins with b'body,kind"),
        "open.json": (b'[{"body": "a", "kind": "x"}, {"body": "b"', "not complete JSON: item 2 reads"),
        "after.json": (b'[{"body": "a", "kind": "x"}\n] more', "goes on after the array"),
        "one.json": (b'{\n  "rows": []\n}', "one JSON object over several lines"),
        "book.xlsx": (b"PK\x03\x04", r"extension '.xlsx'.*\n.*save the sheet as .csv"),
        "rows.txt": (b"body\tkind\na\tx\n", r"extension '.txt'.*\n.*data.format: csv"),
        "two.zip": (None, "archive of 2 files: a.csv, b.csv"),
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "body\n")
        archive.writestr("b.csv", "body\n")
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read(tmp_path / name)


def test_bytes_that_are_no_text_make_only_their_row_bad(tmp_path):
    for name, encoding, reason in [
        ("a.csv", "utf-8", "invalid UTF-8"),
        ("b.csv", "utf-16", "invalid UTF-16-LE"),
        ("c.csv", "cp1252", "invalid cp1252"),
        ("d.jsonl", "utf-8", "invalid UTF-8"),
        ("e.jsonl", "utf-16", "invalid UTF-16-LE"),
    ]:
        write = FORMS["comma.csv" if name.endswith("csv") else "rows.jsonl"][0]
        bad = {"utf-8": b"\xff", "utf-16": b"\x00\xdc", "cp1252": b"\x81"}[encoding]
        content = write([("one", "x"), ("b\x01d", "y"), ("two", "x")], "\n").encode(encoding)
        (tmp_path / name).write_bytes(content.replace("\x01".encode(encoding)[-2:].replace(b"\xfe\xff", b""), bad))
        if name.endswith("jsonl"):
            content = write([("one", "x"), ("b@d", "y"), ("two", "x")], "\n").encode(encoding)
            (tmp_path / name).write_bytes(content.replace("@".encode(encoding.replace("16", "16-le")), bad))
        keys = {"encoding": "cp1252"} if encoding == "cp1252" else {}
        assert [row["reason"] for row in read(tmp_path / name, keys)] == [None, reason, None], name


def test_an_array_of_many_pieces_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.readers.json_items._CHUNK_CHARS", 7)
    rows = [("long " * 50, "x"), ("ü" * 30, "y"), ("[{", "}]"), ('"', "\\")]
    path = tmp_path / "rows.json"
    for indent in (None, 2):
        path.write_text(json.dumps([{"body": text, "kind": label} for text, label in rows], indent=indent))
        assert texts(read(path)) == rows
    path.write_text("[]")
    with pytest.raises(DataError, match="holds no rows"):
        read(path)
    path.write_text('[1, {"body": "a", "kind": "x"}, "text", null, [2]]')
    assert [row["reason"] for row in read(path)] == ["not a JSON object", None, *["not a JSON object"] * 3]
    path.write_text('[1, 2]\n{"body": "a", "kind": "x"}\n')  # lines, of which one is an array
    assert [row["reason"] for row in read(path)] == ["not a JSON object", None]


def test_the_same_bytes_read_in_another_way_are_other_data(tmp_path):
    (tmp_path / "a.csv").write_text("body;kind\na;x\n")
    digests = [
        digest_files(find_source_files(str(tmp_path / "a.csv"), "train", read_format(keys)))
        for keys in ({}, {"separator": ","}, {"kind": "tsv"}, {"header": ["body", "kind"]}, {"encoding": "cp1252"})
    ]
    assert len(set(digests)) == len(digests)


def test_keys_of_a_format():
    assert read_format("json") == FormatSpec(kind="jsonl") and read_format(()) == FormatSpec()
    assert read_format(["csv", "separator=\\t", "header=a, b"]) == FormatSpec(
        kind="csv", separator="\t", header=["a", "b"]
    )
    for value, message in {
        "xlsx": "kind",
        ("separatr=;",): "did you mean 'separator'",
        ("separator=;;",): "one character",
        ("encoding=cp1525",): "no encoding of text",
        ("encoding=base64",): "no encoding of text",
        ("parquet", "separator=;"): "does not use separator",
        ("separator=;", "quote=;"): "must be different",
        ("header=a,a",): "every column once",
    }.items():
        with pytest.raises(SpecError, match=message):
            read_format(value)
