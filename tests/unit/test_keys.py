"""API keys: hashed, compared, limited."""

import json

import pytest

from cluster.errors import RequestError, SpecError, UserError
from serve import keys
from serve.asgi.auth import Guard


def test_a_key_is_shown_once_and_kept_as_a_hash(tmp_path):
    path = tmp_path / "folder" / "keys.json"
    key = keys.add(path, "team-a", None)
    assert key.startswith("rm_") and len(key) > 40
    assert key not in path.read_text() and path.stat().st_mode & 0o077 == 0
    guard = Guard(keys.load(str(path)))
    assert guard.admit({b"authorization": f"Bearer {key}".encode()}) == "team-a"
    assert guard.admit({b"x-api-key": key.encode()}) == "team-a"
    for wrong in ({}, {b"authorization": b"Bearer no"}, {b"x-api-key": key.encode() + b"x"}):
        with pytest.raises(RequestError) as refused:
            guard.admit(wrong)
        assert refused.value.status == 401 and key not in str(refused.value)


def test_without_keys_everybody_may_ask():
    assert Guard([]).admit({}) == ""


def test_a_key_may_ask_so_often(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    key = keys.add(path, "slow", 4.0)
    guard = Guard(keys.load(str(path)), replicas=2)
    now = [100.0]
    monkeypatch.setattr("serve.asgi.auth.time.monotonic", lambda: now[0])
    guard = Guard(keys.load(str(path)), replicas=2)  # two replicas: each lets through half
    headers = {b"x-api-key": key.encode()}
    for _ in range(2):
        guard.admit(headers)
    with pytest.raises(RequestError) as refused:
        guard.admit(headers)
    assert refused.value.status == 429 and refused.value.retry_after_s == 1
    now[0] += 0.5
    assert guard.admit(headers) == "slow"


def test_mistakes_with_keys_are_told(tmp_path):
    path = tmp_path / "keys.json"
    with pytest.raises(SpecError, match="raymill keys add"):
        keys.load(str(path))
    keys.add(path, "one", None)
    with pytest.raises(UserError, match="has a key 'one' already"):
        keys.add(path, "one", None)
    with pytest.raises(UserError, match="did you mean 'one'"):
        keys.remove(path, "onee")
    keys.remove(path, "one")
    with pytest.raises(SpecError, match="holds no keys"):
        keys.load(str(path))
    path.write_text(json.dumps({"keys": [{"name": 1}]}))
    with pytest.raises(SpecError, match="no file of keys"):
        keys.load(str(path))
