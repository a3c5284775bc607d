"""Folders and patterns as sources: names with signs of patterns, tables, partitions, and files that are left out."""

import itertools
import json
import os

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from trainer.data.readers.file_groups import read_group
from trainer.data.readers.header import list_columns
from trainer.data.readers.read import read_blocks
from trainer.data.readers.read_options import ReadOptions
from trainer.data.sources.folder_contents import count_endings
from trainer.data.sources.local_pattern import is_pattern, match_files
from trainer.data.sources.row_folder import list_folder_items
from trainer.data.sources.source_files import check_named_once, digest_files, find_source_files, list_left_out
from trainer.spec.data import FileSpec
from trainer.spec.format import FormatSpec

COLUMNS = {"text": "text", "label": "label"}


def write_table(path, rows):
    """Write rows in the format of the file's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        pa.feather.write_feather(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        separator = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [rows[0], *(row.values() for row in rows)]
        path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))


def read_rows(files, columns=COLUMNS):
    blocks = [block for file in files for block in read_blocks(file, columns)]
    return [(row["text"], row["label"], row["reason"]) for block in blocks for row in block.to_pylist()]


def left_out(source, part="train", file_format="auto"):
    return {ending: count["files"] for ending, count in count_endings(list_left_out(source, part, file_format)).items()}


NAMES = ["exp [v2]", "a*b", "what?", "[ab]", "x[!y]", "{1,2}", "ü [x]", "**"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_exists_is_no_pattern(tmp_path, name):
    for folder, file in itertools.product((name, "a", "exp v"), ("part-0.csv", "part-1.csv", "part [2].csv")):
        write_table(tmp_path / folder / "in" / file, [{"text": f"{folder} {file}", "label": "x"}])
    own = tmp_path / name / "in"
    for pattern, expected in [
        (own / "part-*.csv", ["part-0.csv", "part-1.csv"]),
        (own / "part [2].csv", ["part [2].csv"]),
        (own / "part?[[]2].csv", ["part [2].csv"]),
        (own / "*", ["part [2].csv", "part-0.csv", "part-1.csv"]),
        (tmp_path / name / "*" / "part [2].csv", ["part [2].csv"]),
        (tmp_path / name / "**" / "part-[01].csv", ["part-0.csv", "part-1.csv"]),
        (own, ["part [2].csv", "part-0.csv", "part-1.csv"]),
    ]:
        files = find_source_files(str(pattern), "train")
        assert [file.path for file in files] == [str(own / file) for file in expected], pattern


def test_patterns_match_what_glob_matches(tmp_path, monkeypatch):
    for path in ("a/x.csv", "a/b/y.csv", "a/.hidden/z.csv", "a/.z.csv", "c/x.csv", "x.csv"):
        write_table(tmp_path / path, [{"text": "t", "label": "x"}])
    monkeypatch.chdir(tmp_path)
    for pattern, expected in {
        "*.csv": ["x.csv"],
        "*/x.csv": ["a/x.csv", "c/x.csv"],
        "**/*.csv": ["a/b/y.csv", "a/x.csv", "c/x.csv", "x.csv"],
        "a/**": ["a/b/y.csv", "a/x.csv"],
        "[ac]/x.csv": ["a/x.csv", "c/x.csv"],
        "*/b/*": ["a/b/y.csv"],
        "d/*": [],
        f"../{tmp_path.name}/[x].csv": [f"../{tmp_path.name}/x.csv"],
    }.items():
        assert [str(path) for path in match_files(pattern)] == expected, pattern
    assert is_pattern("a/*") and not is_pattern("a/x.csv") and not is_pattern("d/x.csv")


def test_a_pattern_of_folders_needs_the_names_of_files(tmp_path):
    write_table(tmp_path / "label=x/a.csv", [{"text": "t", "n": 1}])
    with pytest.raises(DataError, match=r"matches only folders, for example .*label=x\n.*label=\*/\*\*"):
        find_source_files(str(tmp_path / "label=*"), "train")
    assert read_rows(find_source_files(str(tmp_path / "label=*/**"), "train")) == [("t", "x", None)]


FORMATS = ["csv", "tsv", "jsonl", "json", "parquet", "arrow"]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_folder_of_tables_with_columns_in_its_names(tmp_path, ending):
    root = tmp_path / "rows"
    values = {"red": "red", "half%2Fhalf %C3%BC": "half/half ü", "__HIVE_DEFAULT_PARTITION__": None}
    for (name, _), year in itertools.product(values.items(), (2025, 2026)):
        rows = [{"text": f"{name} {year} {n}", "n": n} for n in range(2)]
        write_table(root / f"year={year}/label={name}/part-0.{ending}", rows)
    for beside in ("_SUCCESS", "_metadata", f".part-0.{ending}.crc", f"year=2025/_temporary/x.{ending}", "Thumbs.db"):
        (root / beside).parent.mkdir(exist_ok=True)
        (root / beside).write_bytes(b"beside")
    (root / f"year=2025/label=red/empty.{ending}").touch()
    expected = [
        (f"{name} {year} {n}", value, None if value else "missing label")
        for year in (2025, 2026)
        for name, value in sorted(values.items())
        for n in range(2)
    ]
    sources = [str(root), str(root / "*/*/part-0.*"), [str(root / "year=2025"), str(root / "year=2026")]]
    for source in sources:
        files = find_source_files(source, "train")
        rows = read_rows(files)
        assert [(text, label or None, reason) for text, label, reason in rows if label] == [
            row for row in expected if row[1]
        ], source
        assert [text for text, label, _ in rows if not label] == [text for text, label, _ in expected if not label]
        assert {column.name for column in list_columns(files[0])} >= {"text", "n", "label"}
    files = find_source_files(str(root), "train")
    assert [file.partition["year"] for file in files] == ["2025"] * 3 + ["2026"] * 3
    columns = {**COLUMNS, "feature.year": "year", "feature.n": "n"}
    [block] = read_blocks(files[0], columns, frozenset({"feature.year", "feature.n"}))
    assert block.column_names == ["row", "text", "label", "feature.year", "feature.n", "reason"]
    counts = left_out(str(root))
    assert sum(counts.values()) == 6 and counts[f".{ending} (empty)"] == 1 and counts[".db"] == 1, counts


def test_other_values_in_the_names_are_other_data(tmp_path):
    digests = set()
    for value in ("x", "y"):
        write_table(tmp_path / value / f"label={value}/a.csv", [{"text": "t", "n": 1}])
        digests.add(digest_files(find_source_files(str(tmp_path / value), "train")))
    assert len(digests) == 2


def test_a_file_named_alone_has_no_columns_in_its_path(tmp_path):
    write_table(tmp_path / "label=x/a.csv", [{"text": "t", "n": 1}])
    with pytest.raises(DataError, match="no column 'label'") as caught:
        read_rows(find_source_files(str(tmp_path / "label=x/a.csv"), "train"))
    assert "name the folder above `label=...`" in caught.value.fix


def test_files_of_a_folder_may_have_other_columns_and_orders(tmp_path):
    write_table(tmp_path / "a.csv", [{"text": "a", "label": "x"}])
    (tmp_path / "b.csv").write_bytes("label;more;text\ny;;b\n".encode("utf-8-sig"))
    (tmp_path / "c.csv").write_bytes("sep=|\r\nlabel|text\r\nz|c\r\n".encode("utf-16"))
    (tmp_path / "d.csv").write_text("text,label\n")  # no rows
    assert read_rows(find_source_files(str(tmp_path), "train")) == [
        ("a", "x", None),
        ("b", "y", None),
        ("c", "z", None),
    ]


def test_formats_by_source(tmp_path):
    (tmp_path / "a.csv").write_bytes("text;label\nfür;x\n".encode("cp1252"))
    (tmp_path / "b.csv").write_text("text,label\nnaïve,y\n")
    source = [FileSpec(path=str(tmp_path / "a.csv"), format=FormatSpec(encoding="cp1252")), str(tmp_path / "b.csv")]
    assert read_rows(find_source_files(source, "train")) == [("für", "x", None), ("naïve", "y", None)]
    assert read_rows(find_source_files(source, "train", FormatSpec(header=["text", "label"])))[-2:] == [
        ("text", "label", None),
        ("naïve", "y", None),
    ]


def test_a_folder_that_may_be_read_in_several_ways(tmp_path):
    def make(name, *paths):
        for path in paths:
            write_table(tmp_path / name / path, [{"text": "t", "label": "x"}]) if not path.endswith(
                (".txt", ".png")
            ) else _touch(tmp_path / name / path)
        return str(tmp_path / name)

    for folder, message in {
        make("mixed", "a.csv", "b.parquet"): "tables of several formats: 1 csv, 1 parquet",
        make("parts", "train.csv", "test.csv"): "rows of several parts by their names: test.csv and train.csv",
        make("part_folders", "train/a.csv", "test/a.csv"): "rows of several parts",
        make("delta", "a.parquet", "_delta_log/0.json"): "is a Delta Lake table",
        make("texts", "pos/a.txt", "pos/b.csv"): "both texts and tables",
        make("rows", "pos/a.txt", "pos/b.png"): "both texts and images",
    }.items():
        with pytest.raises(DataError, match=message):
            find_source_files(folder, "train")
    assert len(find_source_files(str(tmp_path / "mixed"), "train", "csv")) == 1
    assert left_out(str(tmp_path / "mixed"), file_format="csv") == {".parquet": 1}
    described = make("described", "a.parquet", "b.parquet", "schema.json")
    assert len(find_source_files(described, "train")) == 2 and left_out(described) == {".json": 1}
    images = make("images", "cat/a.png", "metadata.csv")
    assert find_source_files(images, "train")[0].format == "images" and left_out(images) == {".csv": 1}
    hadoop = tmp_path / "hadoop"
    hadoop.mkdir()
    (hadoop / "part-00000").write_text("t\tx\n")
    (hadoop / "_SUCCESS").touch()
    files = find_source_files(str(hadoop), "train", FormatSpec(kind="tsv", header=["text", "label"]))
    assert read_rows(files) == [("t", "x", None)]


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_every_file_is_a_row_or_left_out(tmp_path):
    names = [
        "cat/a.jfif", "cat/b.JPEG", "cat/c.avif", "cat/d.heic", "cat/e.jpg_large", "dog/f.webp", "dog/g.HEIC",
        "dog/.hidden.png", ".git/x.png", ".git/y.png", "dog/Thumbs.db", "dog/.DS_Store", "readme", "stray.png",
    ]  # fmt: skip
    for name in names:
        _touch(tmp_path / name)
    [file] = find_source_files(str(tmp_path), "train")
    items = list_folder_items(file.path, file.format)
    assert [item.relative for item in items] == ["cat/a.jfif", "cat/b.JPEG", "cat/c.avif", "dog/f.webp", "stray.png"]
    assert left_out(str(tmp_path)) == {
        ".heic": 2, ".db": 1, ".jpg_large": 1, ".png": 1, "hidden files": 1, "hidden folders": 1, "no extension": 1,
    }  # fmt: skip
    [entry] = [
        entry for ending, entry in count_endings(list_left_out(str(tmp_path), "train")).items() if ending == ".heic"
    ]
    assert entry["examples"] == [str(tmp_path / "cat/d.heic"), str(tmp_path / "dog/g.HEIC")]


def test_a_pattern_leaves_out_what_tools_write_beside_the_rows(tmp_path):
    for name in ("a.csv", "b.csv", "b.csv.md5", "_SUCCESS", "Thumbs.db", "c.csv"):
        (tmp_path / name).write_text("text,label\nt,x\n" if name != "c.csv" else "")
    files = find_source_files(str(tmp_path / "*"), "train")
    assert [os.path.basename(file.path) for file in files] == ["a.csv", "b.csv"]  # noqa: PTH119
    assert left_out(str(tmp_path / "*")) == {".csv (empty)": 1, ".db": 1, ".md5": 1, "no extension": 1}
    (tmp_path / "d.cvs").write_text("text,label\n")
    with pytest.raises(DataError, match="extension '.cvs'"):
        find_source_files(str(tmp_path / "*"), "train")
    with pytest.raises(DataError, match="is empty"):
        find_source_files(str(tmp_path / "c.csv"), "train")


@pytest.mark.parametrize("ending", ["txt", "png"])
def test_class_folders_named_like_partitions(tmp_path, ending):
    for name in ("label=cat", "label=dog%20s"):
        _touch(tmp_path / name / f"a.{ending}")
    [file] = find_source_files(str(tmp_path), "train")
    assert [item.label for item in list_folder_items(file.path, file.format)] == ["cat", "dog s"]
    _touch(tmp_path / "bird" / f"a.{ending}")
    assert [item.label for item in list_folder_items(file.path, file.format)] == ["bird", "label=cat", "label=dog%20s"]


def test_names_that_are_no_utf8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/rows"
    os.mkdir(folder)  # noqa: PTH102  a name in bytes
    for name in (b"caf\xe9.csv", b"b.csv", b"left.out\xe9"):
        with open(folder + b"/" + name, "w") as file:  # noqa: PTH123
            file.write("text,label\nt,x\n")
    files = find_source_files(str(tmp_path / "rows"), "train")
    options = ReadOptions(COLUMNS)
    [block] = read_group(files, options)
    assert block["path"].to_pylist() == [str(tmp_path / "rows/b.csv"), str(tmp_path / "rows/caf?.csv")]
    assert json.dumps(count_endings(list_left_out(str(tmp_path / "rows"), "train")), ensure_ascii=False).encode()


def test_links_to_files_and_folders_are_followed(tmp_path):
    write_table(tmp_path / "real/a.csv", [{"text": "t", "label": "x"}])
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/link.CSV").symlink_to(tmp_path / "real/a.csv")
    (tmp_path / "rows/label=y").symlink_to(tmp_path / "real")
    files = find_source_files(str(tmp_path / "rows"), "train")
    assert read_rows(files) == [("t", "y", None), ("t", "x", None)]
    with pytest.raises(DataError, match="again in"):
        check_named_once(files)
    (tmp_path / "rows/gone.csv").symlink_to(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="broken link"):
        find_source_files(str(tmp_path / "rows"), "train")
