"""Files and folders that are either complete or absent."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from cluster.errors import ResourceError
from cluster.files import (
    OWNER_FILE,
    json_sha256,
    mark_owner,
    new_folder,
    read_json,
    remove_leftovers,
    wait_for_folders,
    write_json,
)

ROOT = Path(__file__).parents[2]


def test_a_reader_never_sees_a_partial_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"n": 0, "pad": "x" * 100_000})
    stop = threading.Event()

    def write():
        for n in range(60):
            write_json(path, {"n": n, "pad": "x" * 100_000})
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not stop.is_set():
        assert len(read_json(path)["pad"]) == 100_000
    writer.join()
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("whole")
        assert not (tmp_path / "a").exists()
    with pytest.raises(FileExistsError), new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("second")
    assert (tmp_path / "a" / "x").read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_digests_of_values_do_not_depend_on_the_order_of_keys():
    assert (
        json_sha256({"a": 1, "b": [1, 2]}) == json_sha256({"b": [1, 2], "a": 1}) != json_sha256({"a": 1, "b": [2, 1]})
    )


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_folders_of_ended_processes_are_removed_and_those_of_running_ones_stay(tmp_path):
    code = "import sys, pathlib; from cluster.files import mark_owner; mark_owner(pathlib.Path(sys.argv[1]))"
    for name in (".a-0123abcd", ".b-0123abcd", ".c-0123abcd", ".d-0123abcd"):
        (tmp_path / name).mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / ".a-0123abcd")], check=True, cwd=ROOT)
    mark_owner(tmp_path / ".b-0123abcd")
    (tmp_path / ".c-0123abcd" / OWNER_FILE).write_text('["another-host", 1, 1.0]')
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b-0123abcd", ".c-0123abcd", ".d-0123abcd"]


def test_a_folder_whose_owner_works_stays_whatever_the_clock_says(tmp_path, monkeypatch):
    folder = tmp_path / ".a-0123abcd"
    folder.mkdir()
    mark_owner(folder)
    abandoned = tmp_path / ".b-0123abcd"
    abandoned.mkdir()
    os.utime(folder, (1, 1))
    os.utime(abandoned, (1, 1))
    # psutil computes the start of a process from the time of the boot, which moves when the clock is set.
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 3600)
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".a-0123abcd"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_that_cannot_sync(code, tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if code == errno.EIO:
        with pytest.raises(ResourceError, match="cannot be written"):
            write_json(tmp_path / "a.json", 1)
        assert not list(tmp_path.iterdir())
    else:
        write_json(tmp_path / "a.json", 1)
        with new_folder(tmp_path / "b") as folder:
            (folder / "c").write_text("c")
        assert read_json(tmp_path / "a.json") == 1 and (tmp_path / "b" / "c").exists()


@pytest.mark.slow
def test_a_missing_folder_is_waited_for_and_never_made(tmp_path):
    later = threading.Timer(0.3, (tmp_path / "run").mkdir)
    later.start()
    wait_for_folders([tmp_path, tmp_path / "run"], wait_s=20)
    with pytest.raises(ResourceError, match="away is not there on machine"):
        wait_for_folders([tmp_path / "away"], wait_s=0.1)
    assert not (tmp_path / "away").exists()
