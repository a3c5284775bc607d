"""Digests of files: right after every kind of change, and hashed once by many processes."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster import digests
from cluster.digests import file_digests


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_LARGE_BYTES", 1000)
    monkeypatch.setattr(digests, "_TIME_STEP_S", 0.05)
    path = tmp_path / "digests"
    path.mkdir()
    return path


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that were really read, in order."""
    names = []
    real = digests.file_sha256
    monkeypatch.setattr(digests, "file_sha256", lambda path: names.append(path.name) or real(path))
    return names


def write(path, content):
    path.write_bytes(content)
    time.sleep(0.1)
    return hashlib.sha256(content).hexdigest()


def test_a_large_file_is_hashed_once_and_a_small_one_each_time(tmp_path, folder, hashed):
    large, small = write(tmp_path / "large", b"a" * 5000), write(tmp_path / "small", b"b")
    for _ in range(3):
        assert file_digests([tmp_path / "large", tmp_path / "small"], folder) == [large, small]
    assert sorted(hashed) == ["large", "small", "small", "small"]


def flip(path):
    """Change a byte, and set the time of the content back to what it was."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(2500)
        file.write(b"X")
    os.utime(path, ns=times)


def replace(path):
    other = path.with_name("other")
    other.write_bytes(b"c" * 5000)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [flip, replace, lambda path: path.write_bytes(b"d" * 5000)])
def test_a_changed_file_is_hashed_again(tmp_path, folder, change):
    path = tmp_path / "model"
    before = write(path, b"a" * 5000)
    assert file_digests([path], folder) == [before]
    change(path)
    assert file_digests([path], folder) == [hashlib.sha256(path.read_bytes()).hexdigest()] != [before]


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, folder, hashed, monkeypatch):
    monkeypatch.setattr(digests, "_TIME_STEP_S", 60.0)
    write(tmp_path / "new", b"a" * 5000)
    file_digests([tmp_path / "new"], folder)
    file_digests([tmp_path / "new"], folder)
    assert hashed == ["new", "new"] and list(folder.iterdir()) == []


def test_a_digest_is_forgotten_after_a_day_and_a_broken_one_at_once(tmp_path, folder, hashed):
    expected = write(tmp_path / "model", b"a" * 5000)
    file_digests([tmp_path / "model"], folder)
    (entry,) = [path for path in folder.iterdir() if path.suffix != ".lock"]
    os.utime(entry, (time.time() - 90_000,) * 2)
    assert file_digests([tmp_path / "model"], folder) == [expected]
    entry.write_text("no digest")
    assert file_digests([tmp_path / "model"], folder) == [expected]
    assert len(hashed) == 3


def test_many_at_once_hash_a_file_once(tmp_path, folder, hashed):
    expected = write(tmp_path / "model", b"a" * 50_000)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: file_digests([tmp_path / "model"], folder), range(16)))
    assert results == [[expected]] * 16
    assert hashed == ["model"]


def test_others_folder_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(digests.tempfile, "gettempdir", lambda: str(tmp_path))
    own = digests._own_folder()
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    assert digests._own_folder() is None
