"""Paths that begin with a home folder, for users who have one and for users who have none."""

import os
import pwd
from pathlib import Path

import pytest

from cluster.errors import ResourceError
from cluster.paths import expand_home

ROOT = Path(__file__).parents[2]


def test_homes_are_replaced(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of me")
    for written, expanded in {
        "~": "/home/of me",
        "~/.raymill": "/home/of me/.raymill",
        "data/~": "data/~",
        "a~b": "a~b",
        "./~nobody_here": "~nobody_here",
        "~nobody_here/x": "~nobody_here/x",
        "/data": "/data",
        "": ".",
    }.items():
        assert expand_home(written) == Path(expanded), written
    assert expand_home("~root/x") == Path(pwd.getpwnam("root").pw_dir) / "x"


def test_a_user_without_a_home_is_asked_for_a_folder(monkeypatch):
    def no_entry(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for path in ("~", "~/.raymill"):
        with pytest.raises(
            ResourceError, match=rf"{path!r}.*HOME is not set, and user {os.getuid()}.*(?s:.*)--storage"
        ):
            expand_home(path)
    assert expand_home("/data/~") == Path("/data/~")
    monkeypatch.setenv("HOME", "")
    with pytest.raises(ResourceError, match="HOME is empty(?s:.*)set HOME"):
        expand_home("~/.raymill")
    assert expand_home("data") == Path("data")


@pytest.mark.parametrize("name", ["caf\udce9", "a/\udcff\udcfe/b", "~/\udce9"])
def test_a_path_that_is_not_utf8_is_named(name):
    with pytest.raises(ResourceError, match="bytes that are not UTF-8(?s:.*)rename"):
        expand_home(name)
    assert expand_home("café/データ") == Path("café/データ")


def test_all_code_expands_homes_in_one_way():
    files = [path for top in ("cluster", "raymill", "serve", "trainer", "tune") for path in (ROOT / top).rglob("*.py")]
    users = {str(path.relative_to(ROOT)) for path in files if "expanduser" in path.read_text()}
    assert users == {"cluster/paths.py"}, f"use cluster.paths.expand_home: {sorted(users)}"
