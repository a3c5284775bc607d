"""API keys: a file of hashes, and who may ask how often. The key itself is shown once and kept nowhere.

A key is 32 random bytes, so one SHA-256 is as safe as a slow hash of a password: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from cluster.errors import RequestError, SpecError, UserError, nearest
from cluster.files import read_json, write_json

_PREFIX = "rm_"
# How many requests a key may save up while it is quiet, in seconds of its rate.
_BURST_S = 1.0


def add(path: Path, name: str, rate: float | None) -> str:
    """Add a key to a file, made if it is not there, and return it. `rate` are requests a second, or None for any."""
    key = _PREFIX + secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=30):
        keys = _read(path) if path.is_file() else []
        if any(one["name"] == name for one in keys):
            raise UserError(f"{path} has a key '{name}' already", "give another name, or remove that one first")
        write_json(path, {"keys": [*keys, {"name": name, "sha256": _hash(key), "rate": rate}]})
        path.chmod(0o600)
    return key


def remove(path: Path, name: str) -> None:
    """Take a key out of a file."""
    with FileLock(f"{path}.lock", timeout=30):
        keys = _there(str(path))
        if all(one["name"] != name for one in keys):
            raise UserError(f"{path} has no key '{name}'", nearest(name, [one["name"] for one in keys]))
        write_json(path, {"keys": [one for one in keys if one["name"] != name]})
        path.chmod(0o600)


def load(path: str) -> list[dict[str, Any]]:
    """Return the keys of a file, hashed. Raises `SpecError`, also where there is none in it: nobody could ask."""
    found = _there(path)
    if not found:
        raise SpecError(f"serve.keys={path} holds no keys", f"add one with `raymill keys add NAME --file {path}`")
    return found


def _there(path: str) -> list[dict[str, Any]]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise SpecError(
            f"serve.keys={path}: there is no such file", f"make it with `raymill keys add NAME --file {path}`"
        )
    return _read(file)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        keys = read_json(file)["keys"]
        return [{"name": str(one["name"]), "sha256": str(one["sha256"]), "rate": one["rate"]} for one in keys]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{file} is no file of keys: {error}", "make it with `raymill keys add`") from error


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Guard:
    """Lets requests with a known key in, each as often as it may. With no keys at all everybody is let in."""

    def __init__(self, keys: list[dict[str, Any]], replicas: int = 1) -> None:
        self._keys = [(one["name"], one["sha256"].encode()) for one in keys]
        # Each replica sees its share of the requests.
        self._buckets = {one["name"]: _Bucket(one["rate"] / replicas) for one in keys if one["rate"]}

    def admit(self, headers: dict[bytes, bytes]) -> str:
        """Return the name of the request's key, "" where there are none. Raises `RequestError` 401 or 429."""
        if not self._keys:
            return ""
        given = headers.get(b"x-api-key") or headers.get(b"authorization", b"")
        key = given.removeprefix(b"Bearer ").removeprefix(b"bearer ").strip()
        found, hashed = "", hashlib.sha256(key).hexdigest().encode()
        for name, known in self._keys:  # all of them, whichever it is
            if hmac.compare_digest(known, hashed):
                found = name
        if not found:
            how = "send it as `Authorization: Bearer KEY`"
            raise RequestError(401, "no_key" if not key else "unknown_key", f"this endpoint needs an API key; {how}")
        bucket = self._buckets.get(found)
        if bucket and not bucket.take():
            raise RateLimited(f"key '{found}' may ask {bucket.rate:g} times a second here", bucket.wait_s)
        return found


class RateLimited(RequestError):
    """A key asks too often."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(429, "rate_limited", message)
        self.retry_after_s = max(1, math.ceil(wait_s))


class _Bucket:
    """So many requests a second, a few of them saved up."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._most = max(1.0, rate * _BURST_S)
        self._left, self._at = self._most, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    @property
    def wait_s(self) -> float:
        """Seconds until the next request may come."""
        return (1.0 - self._left) / self.rate
