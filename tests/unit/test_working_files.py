"""Which files of a working directory travel with a job, and how they are packed."""

import os
import zipfile
from pathlib import Path

import pytest

from cluster.errors import ResourceError
from cluster.jobs import package, working_files
from cluster.jobs.package import check_package_size, describe_left_out, write_package
from cluster.jobs.working_files import list_working_files


@pytest.fixture
def project(tmp_path):
    """A working directory with everything that does not travel, and two files that do."""
    for name in ["run.yaml", "steps/clean.py", ".git/config", ".venv/pyvenv.cfg", ".venv/lib/torch.py", "myenv/pyvenv.cfg",
                 "steps/__pycache__/clean.pyc", "old.pyc", "store/runs/a", ".env", ".env.local", "server.pem", ".ssh/config",
                 "id_rsa", "a.egg-info/PKG-INFO", "node_modules/x/index.js"]:  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "rows.parquet").write_bytes(b"x" * 11_000_000)
    return tmp_path


def test_only_the_users_small_files_travel(project):
    working = list_working_files(project, storage=project / "store")
    assert working.files == {"run.yaml": 1, "steps/clean.py": 1}
    reasons = {item.path: item.reason for item in working.left_out}
    assert reasons == {
        ".git": "version control",
        ".venv": "environment of Python",
        "myenv": "environment of Python",
        "store": "storage",
        ".ssh": "may hold secrets",
        ".env": "may hold secrets",
        ".env.local": "may hold secrets",
        "id_rsa": "may hold secrets",
        "server.pem": "may hold secrets",
        "rows.parquet": "too large",
    }
    assert list_working_files(project, max_file_bytes=20_000_000).files["rows.parquet"] == 11_000_000


def test_what_is_left_out_is_said_by_reason_the_largest_first(project):
    lines = describe_left_out(list_working_files(project, storage=project / "store").left_out, 10_000_000)
    assert "left out, over 10.0 MB: rows.parquet (11.0 MB)" in lines
    assert "left out, environment of Python: .venv, myenv" in lines
    assert any(line.startswith("left out, may hold secrets: .env,") and line.endswith("and 1 more") for line in lines)


def test_ignore_files_hold_below_their_folder_and_a_later_pattern_includes_again(tmp_path):
    for name in ["logs/a.log", "logs/keep.log", "a.log", "sub/b.tmp", "sub/c.txt", "b.tmp", "big/x", "big/y"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\nbig/\n")
    (tmp_path / "sub" / ".rayignore").write_text("/b.tmp\n")
    working = list_working_files(tmp_path)
    assert sorted(working.files) == ["b.tmp", "logs/keep.log", "sub/c.txt"]
    assert {item.path: item.reason for item in working.left_out} == {
        "a.log": ".gitignore",
        "big": ".gitignore",
        "logs/a.log": ".gitignore",
        "sub/b.tmp": ".rayignore",
    }


def test_links_and_odd_files(tmp_path):
    (tmp_path / "real.txt").write_text("text")
    (tmp_path / "link.txt").symlink_to("real.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    working = list_working_files(tmp_path)
    assert working.files == {"real.txt": 4, "link.txt": 4}
    reasons = sorted(item.reason for item in working.left_out)
    assert reasons == [
        "cannot be read: No such file or directory",
        "link to a folder",
        "name is not UTF-8",
        "no regular file",
    ]


def test_a_folder_with_too_many_files_is_no_project(tmp_path, monkeypatch):
    monkeypatch.setattr(working_files, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("x")
    with pytest.raises(ResourceError, match=r"more than 3 files[\s\S]*\.rayignore"):
        list_working_files(tmp_path)


def test_the_same_files_give_the_same_bytes(tmp_path):
    (tmp_path / "a.py").write_text("a = 1\n")
    files = {"b/c.json": b"{}", "a.py": tmp_path / "a.py"}
    write_package(tmp_path / "1.zip", files)
    os.utime(tmp_path / "a.py", (1, 1))
    write_package(tmp_path / "2.zip", dict(reversed(files.items())))
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.namelist() == ["a.py", "b/c.json"] and packed.read("a.py") == b"a = 1\n"


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(ResourceError, match=r"gone\.txt cannot be packed: No such file"):
        write_package(tmp_path / "1.zip", {"gone.txt": tmp_path / "gone.txt"})


def test_a_package_over_the_limit_names_the_largest_folders():
    sizes = {"data/a.csv": 60_000_000, "data/b.csv": 50_000_000, "notes.txt": 10}
    with pytest.raises(ResourceError, match=r"110 MB to send, over 100 MB; the largest: data/ 110 MB, notes.txt 10 B"):
        check_package_size(sizes, Path("/work"))
    assert check_package_size({"a": 5}, Path("/work")) == 5
    assert package.MAX_PACKAGE_BYTES < 500_000_000  # Ray's own limit for a package
