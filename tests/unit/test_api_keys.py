"""API keys: stored as hashes, authenticated, rate-limited."""

import json

import pytest

from cluster.errors import RequestError, SpecError, UserError
from serve.asgi.auth import ApiKeyAuth
from serve.keys import add_key, load_keys, remove_key


def test_a_key_is_shown_once_and_stored_as_a_hash(tmp_path):
    path = tmp_path / "folder" / "keys.json"
    key = add_key(path, "team-a", None)
    assert key.startswith("rm_") and len(key) > 40
    assert key not in path.read_text() and path.stat().st_mode & 0o077 == 0
    auth = ApiKeyAuth(load_keys(str(path)))
    assert auth.authenticate({b"authorization": f"Bearer {key}".encode()}) == "team-a"
    assert auth.authenticate({b"x-api-key": key.encode()}) == "team-a"
    for wrong in ({}, {b"authorization": b"Bearer no"}, {b"x-api-key": key.encode() + b"x"}):
        with pytest.raises(RequestError) as error:
            auth.authenticate(wrong)
        assert error.value.status == 401 and key not in str(error.value)


def test_without_keys_every_request_is_admitted():
    assert ApiKeyAuth([]).authenticate({}) == ""


def test_a_key_is_limited_to_its_rate(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    key = add_key(path, "slow", 4.0)
    now = [100.0]
    monkeypatch.setattr("serve.asgi.auth.time.monotonic", lambda: now[0])
    auth = ApiKeyAuth(load_keys(str(path)), replicas=2)  # each of the two replicas admits half
    headers = {b"x-api-key": key.encode()}
    for _ in range(2):
        auth.authenticate(headers)
    with pytest.raises(RequestError) as error:
        auth.authenticate(headers)
    assert error.value.status == 429 and error.value.retry_after_s == 1
    now[0] += 0.5
    assert auth.authenticate(headers) == "slow"


def test_mistakes_with_keys_are_reported(tmp_path):
    path = tmp_path / "keys.json"
    with pytest.raises(SpecError, match="raymill keys add"):
        load_keys(str(path))
    add_key(path, "one", None)
    with pytest.raises(UserError, match="already has a key 'one'"):
        add_key(path, "one", None)
    with pytest.raises(UserError, match="did you mean 'one'"):
        remove_key(path, "onee")
    remove_key(path, "one")
    with pytest.raises(SpecError, match="holds no keys"):
        load_keys(str(path))
    path.write_text(json.dumps({"keys": [{"name": 1}]}))
    with pytest.raises(SpecError, match="not a valid key file"):
        load_keys(str(path))
