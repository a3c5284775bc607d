"""A Ray that starts here has a token, whether or not there is a home folder to hold it."""

import os

import pytest

from cluster.ray_token import provide_token


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "to be restored after the test")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("home", "provided"),
    [("", False), ("/proc/1/nothing", True), ("absent", True), ("file", True), ("ray_file", True), ("token", False)],
)
def test_a_token_is_provided_where_the_home_cannot_hold_one(home, provided, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "ray_file").mkdir()
    (tmp_path / "ray_file" / ".ray").write_text("a file, not a folder")
    (tmp_path / "token" / ".ray").mkdir(parents=True)
    (tmp_path / "token" / ".ray" / "auth_token").write_text("t")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    provide_token()
    assert len(os.environ.get("RAY_AUTH_TOKEN", "")) == (64 if provided else 0)


def test_a_token_of_the_users_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/1/nothing")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    provide_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    provide_token()
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"
