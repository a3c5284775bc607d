"""A folder of texts, with one subfolder for each class."""

import pyarrow as pa
import pytest

from cluster.errors import DataError
from trainer.data.readers.read import read_blocks
from trainer.data.sources.source_files import digest_files, find_source_files

COLUMNS = {"text": "anything", "label": "at all"}


@pytest.fixture
def reviews(tmp_path):
    root = tmp_path / "reviews"
    for name, content in [
        ("pos/b.txt", b"good"),
        ("pos/a/deep.txt", "très bien".encode()),
        ("pos/empty.txt", b""),
        ("neg/a.txt", b"bad \xff"),
        ("neg/z.txt", b"\xef\xbb\xbfworse\r\n"),
        ("neg/notes.md", b"no row"),
        (".git/x.txt", b"no row"),
        ("stray.txt", b"of no class"),
    ]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_every_text_is_a_row_sorted_by_path(reviews):
    [file] = find_source_files(str(reviews), "train")
    assert file.format == "text"
    [block] = read_blocks(file, COLUMNS)
    assert [tuple(row.values()) for row in block.to_pylist()] == [
        (1, "bad \ufffd", "neg", "invalid UTF-8", str(reviews / "neg/a.txt")),
        (2, "worse\r\n", "neg", None, str(reviews / "neg/z.txt")),
        (3, "très bien", "pos", None, str(reviews / "pos/a/deep.txt")),
        (4, "good", "pos", None, str(reviews / "pos/b.txt")),
        (5, "", "pos", "empty text", str(reviews / "pos/empty.txt")),
        (6, "of no class", None, "missing label", str(reviews / "stray.txt")),
    ]


def test_for_predictions_the_class_does_not_matter(reviews):
    [file] = find_source_files(str(reviews), "input", "text")
    rows = pa.concat_tables(read_blocks(file, {"text": "text"})).to_pylist()
    assert len(rows) == 6 and rows[5]["reason"] is None


def test_the_digest_covers_relative_paths_and_content(reviews, tmp_path):
    def digest(path):
        return digest_files(find_source_files(str(path), "train", "text"))

    before = digest(reviews)
    moved = reviews.rename(tmp_path / "moved")
    assert digest(moved) == before
    (moved / "pos/b.txt").rename(moved / "neg/b.txt")
    assert digest(moved) != before


def test_folders_without_texts(tmp_path):
    (tmp_path / "pos").mkdir()
    (tmp_path / "pos/a.md").write_text("a")
    with pytest.raises(DataError, match=r"is a folder without rows .*\(1 with .md\)\n.*name a folder of .csv"):
        find_source_files(str(tmp_path), "train")
    with pytest.raises(DataError, match=r"holds no .txt file \(1 with .md\)"):
        find_source_files(str(tmp_path), "train", "text")
    with pytest.raises(DataError, match="names the file"):
        find_source_files(str(tmp_path / "pos/a.md"), "train", "text")


def test_long_texts_make_shorter_blocks(tmp_path):
    (tmp_path / "pos").mkdir()
    for n in range(20):
        (tmp_path / f"pos/{n:02}.txt").write_bytes(b"x" * (1 << 20))
    [file] = find_source_files(str(tmp_path), "train")
    blocks = list(read_blocks(file, COLUMNS))
    assert [len(block) for block in blocks] == [16, 4]
    assert blocks[1]["row"].to_pylist() == [17, 18, 19, 20]
    assert blocks[1]["path"].to_pylist()[0] == str(tmp_path / "pos/16.txt")


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    target, root = tmp_path / "target", tmp_path / "reviews"
    for folder in (target, root / "neg"):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(folder.name)
    (target / "itself").symlink_to(target)
    (root / "pos").symlink_to(target)
    (root / "more").symlink_to(target)  # two links to the same folder are two classes
    (root / "neg/up").symlink_to(tmp_path / "reviews/neg/..")
    [file] = find_source_files(str(root), "train")
    [block] = read_blocks(file, COLUMNS)
    rows = [(row["text"], row["label"]) for row in block.to_pylist()]
    assert rows == [("target", "more"), ("neg", "neg"), ("target", "pos")]


def test_a_class_may_be_a_link(tmp_path):
    for name in ("target/a.txt", "reviews/stray.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("a")
    (tmp_path / "reviews/pos").symlink_to(tmp_path / "target")
    assert find_source_files(str(tmp_path / "reviews"), "train")[0].format == "text"


def test_a_broken_link_is_reported(reviews):
    (reviews / "lost").symlink_to(reviews / "not there")
    with pytest.raises(DataError, match="lost is a broken link"):
        find_source_files(str(reviews), "train")


def test_a_folder_has_no_other_columns(reviews):
    [file] = find_source_files(str(reviews), "train")
    with pytest.raises(DataError, match="but no group"):
        list(read_blocks(file, {**COLUMNS, "group": "user"}, frozenset({"group"})))
