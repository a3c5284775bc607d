"""Images as rows: folders, paths in a csv file, bytes in Parquet."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from trainer.data.readers import blocks as row_reader
from trainer.data.readers.read import digest_source_data, read_blocks
from trainer.data.readers.read_options import ReadOptions
from trainer.data.sources.source_files import find_source_files

COLUMNS = {"image": "file", "label": "kind"}
BINARY = frozenset({"image"})


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "pictures"
    for name, content in [
        ("cat/b.PNG", b"b"),
        ("cat/deep/a.jpeg", b"a"),
        ("cat/empty.png", b""),
        ("dog/z.webp", b"z"),
        ("dog/notes.md", b"no row"),
        (".git/x.png", b"no row"),
        ("stray.gif", b"of no class"),
    ]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def rows_of(path, columns=COLUMNS, part="train"):
    [file] = find_source_files(str(path), part)
    return [row for block in read_blocks(file, columns, frozenset(), BINARY) for row in block.to_pylist()]


def test_every_image_of_a_folder_is_a_row_sorted_by_path(pictures):
    [file] = find_source_files(str(pictures), "train")
    assert file.format == "images"
    assert [tuple(row.values()) for row in rows_of(pictures)] == [
        (1, b"b", "cat", None, str(pictures / "cat/b.PNG")),
        (2, b"a", "cat", None, str(pictures / "cat/deep/a.jpeg")),
        (3, b"", "cat", None, str(pictures / "cat/empty.png")),  # the row checks of all formats report it as empty
        (4, b"z", "dog", None, str(pictures / "dog/z.webp")),
        (5, None, None, "missing label", str(pictures / "stray.gif")),
    ]


def test_a_relative_folder_is_read_too(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    assert [row["path"] for row in rows_of("pictures")][:1] == ["pictures/cat/b.PNG"]


def test_for_predictions_images_need_no_class_folders(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    assert [row["image"] for row in rows_of(tmp_path, {"image": "file"}, "input")] == [b"a"]
    with pytest.raises(DataError, match="is a folder"):
        find_source_files(str(tmp_path), "train")


def test_a_folder_of_texts_and_images_asks_for_the_format(pictures):
    (pictures / "cat/a.txt").write_text("a caption")
    with pytest.raises(DataError, match=r"texts and images.*\n.*data.format"):
        find_source_files(str(pictures), "train")
    assert find_source_files(str(pictures), "train", "images")[0].format == "images"


def test_a_folder_without_images(tmp_path):
    (tmp_path / "a.md").write_text("a")
    with pytest.raises(DataError, match=r"holds no .png, .jpg or other image file \(1 with .md\)"):
        find_source_files(str(tmp_path), "train", "images")
    with pytest.raises(DataError, match="a folder whose files are the rows"):
        find_source_files(str(tmp_path / "a.md"), "train", "images")


def test_blocks_of_images_are_short(tmp_path):
    (tmp_path / "cat").mkdir()
    for number in range(300):
        (tmp_path / f"cat/{number:03}.png").write_bytes(b"x")
    [file] = find_source_files(str(tmp_path), "train")
    assert [len(block) for block in read_blocks(file, COLUMNS, frozenset(), BINARY)] == [256, 44]
    for number in range(20):
        (tmp_path / f"cat/{number:03}.png").write_bytes(b"x" * (1 << 20))
    blocks = list(read_blocks(file, COLUMNS, frozenset(), BINARY))
    assert [len(block) for block in blocks] == [16, 256, 28]
    assert blocks[1]["row"].to_pylist()[0] == 17


def test_a_csv_names_files_relative_to_itself(pictures, tmp_path):
    (tmp_path / "other.png").write_bytes(b"other")
    absolute = pictures / "dog/z.webp"
    cells = ["cat/b.PNG", "../other.png", str(absolute), "cat/nothing.png", "cat", "", "cat/empty.png"]
    (pictures / "rows.csv").write_text("file,kind\n" + "".join(f"{cell},k\n" for cell in cells) + "a,b,c\n")
    rows = rows_of(pictures / "rows.csv")
    assert [(row["image"], row["reason"]) for row in rows] == [
        (b"b", None),
        (b"other", None),
        (b"z", None),
        (None, f"no file '{pictures / 'cat/nothing.png'}'"),
        (None, f"'{pictures / 'cat'}' is a folder"),
        (b"", None),
        (b"", None),
        (None, "wrong number of cells"),
    ]
    assert [row["row"] for row in rows] == list(range(1, 9))
    assert rows[0]["path"] == str(pictures / "cat/b.PNG") and rows[0]["label"] == "k"


def test_a_jsonl_may_lack_an_image(pictures):
    lines = [{"file": "cat/b.PNG", "kind": "k"}, {"file": None, "kind": "k"}, {"file": 7, "kind": "k"}]
    (pictures / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [(row["image"], row["reason"]) for row in rows_of(pictures / "rows.jsonl")]
    assert rows == [(b"b", None), (None, "missing image"), (None, "image is not text")]


def test_a_file_that_is_too_large_is_not_read(pictures, monkeypatch):
    from trainer.data.readers import file_cells as file_reader

    monkeypatch.setattr(file_reader, "MAX_VALUE_BYTES", 0)
    assert rows_of(pictures)[0]["reason"] == row_reader.TOO_LARGE


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        *((ending, kind) for ending in ("parquet", "arrow") for kind in (pa.binary(), pa.large_binary())),
        ("arrow", pa.binary_view()),  # parquet has no views
    ],
)
def test_columns_of_bytes(pictures, ending, kind):
    table = pa.table({"file": pa.array([b"a", None, b"\xff\0"], kind), "kind": ["x", "y", "z"]})
    rows = rows_of(write(pictures, ending, table))
    assert [(row["image"], row["reason"]) for row in rows] == [
        (b"a", None),
        (None, "missing image"),
        (b"\xff\0", None),
    ]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_images_as_datasets_stores_them(pictures, ending):
    images = [
        {"bytes": b"a", "path": "gone.png"},
        {"bytes": None, "path": "cat/b.PNG"},
        {"bytes": None, "path": "no.png"},
        None,
    ]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"file": pa.array(images, kind), "kind": ["x", "y", "z", "z"]})
    rows = rows_of(write(pictures, ending, table))
    assert [row["image"] for row in rows] == [b"a", b"b", None, None]
    assert [row["reason"] for row in rows] == [None, None, f"no file '{pictures / 'no.png'}'", "missing image"]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_the_digest_covers_the_files_that_images_without_bytes_name(pictures, ending):
    images = [{"bytes": b"a", "path": "cat/deep/a.jpeg"}, {"bytes": None, "path": "cat/b.PNG"}, None]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    path = write(pictures, ending, pa.table({"file": pa.array(images, kind), "kind": ["x", "y", "z"]}))
    files = find_source_files(str(path), "train")

    def digest():
        return digest_source_data(files, ReadOptions(COLUMNS, frozenset(), BINARY))

    before = digest()
    (pictures / "cat/deep/a.jpeg").write_bytes(b"not read: the row has bytes")
    assert digest() == before
    (pictures / "cat/b.PNG").write_bytes(b"another")
    assert digest() != before


def test_columns_of_paths_and_of_other_types(pictures):
    paths = pa.table({"file": ["cat/b.PNG"], "kind": ["x"]})
    assert rows_of(write(pictures, "parquet", paths))[0]["image"] == b"b"
    numbers = pa.table({"file": [1], "kind": ["x"]})
    with pytest.raises(DataError, match="holds int64, neither bytes nor paths"):
        rows_of(write(pictures, "parquet", numbers))


def test_blocks_of_bytes_are_short(tmp_path):
    table = pa.table({"file": [b"x"] * 300 + [b"x" * (1 << 20)] * 20, "kind": ["k"] * 320})
    [file] = find_source_files(str(write(tmp_path, "parquet", table)), "train")
    blocks = list(read_blocks(file, COLUMNS, frozenset(), BINARY))
    assert [len(block) for block in blocks] == [256, 44 + 16, 4]


def write(folder, ending, table):
    path = folder / f"rows.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return path
