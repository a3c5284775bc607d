"""Files that are whole or not there."""

import threading

import pytest

from cluster.files import new_folder, read_json, sha256_of, write_json


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
