"""Files and folders that are either complete or absent."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.files import OWNER_FILE, json_sha256, mark_owner, new_folder, read_json, remove_leftovers, write_json

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
