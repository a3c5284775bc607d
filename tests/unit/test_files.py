"""Files that are whole or not there."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.files import OWNER, new_folder, read_json, sha256_of, sign, sweep, write_json

ROOT = Path(__file__).parents[2]


def test_a_reader_never_sees_half_a_file(tmp_path):
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


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
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
    assert sha256_of({"a": 1, "b": [1, 2]}) == sha256_of({"b": [1, 2], "a": 1}) != sha256_of({"a": 1, "b": [2, 1]})


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_what_an_ended_process_left_is_swept_at_once_and_what_a_running_one_fills_is_not(tmp_path):
    code = "import sys, pathlib; from cluster.files import sign; sign(pathlib.Path(sys.argv[1]))"
    for name in (".a-0123abcd", ".b-0123abcd", ".c-0123abcd", ".d-0123abcd"):
        (tmp_path / name).mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / ".a-0123abcd")], check=True, cwd=ROOT)
    sign(tmp_path / ".b-0123abcd")
    (tmp_path / ".c-0123abcd" / OWNER).write_text('["another-host", 1, 1.0]')
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b-0123abcd", ".c-0123abcd", ".d-0123abcd"]
