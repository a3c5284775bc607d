"""API key authentication and rate limits for requests."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from typing import Any

from cluster.errors import RequestError

# Burst that a key may send after a pause, in seconds of its rate.
_BURST_S = 1.0


class ApiKeyAuth:
    """Accepts requests with a known key, within the key's rate. If the endpoint has no keys, accepts every request."""

    def __init__(self, keys: list[dict[str, Any]], replicas: int = 1) -> None:
        self._keys = [(key["name"], key["sha256"].encode()) for key in keys]
        # Each replica gets its share of a key's requests, so it enforces that share of the key's rate.
        self._buckets = {key["name"]: _TokenBucket(key["rate"] / replicas) for key in keys if key["rate"]}

    def authenticate(self, headers: dict[bytes, bytes]) -> str:
        """Return the name of the request's key, or "" if the endpoint has no keys.

        Raises `RequestError` 401 for a missing or unknown key, and 429 if the key exceeds its rate.
        """
        if not self._keys:
            return ""
        header = headers.get(b"x-api-key") or headers.get(b"authorization", b"")
        key = header.removeprefix(b"Bearer ").removeprefix(b"bearer ").strip()
        name, digest = "", hashlib.sha256(key).hexdigest().encode()
        for known_name, known_digest in self._keys:  # compares with all keys, so that the time reveals nothing
            if hmac.compare_digest(known_digest, digest):
                name = known_name
        if not name:
            code = "no_key" if not key else "unknown_key"
            raise RequestError(401, code, "this endpoint needs an API key; send it as `Authorization: Bearer KEY`")
        bucket = self._buckets.get(name)
        if bucket and not bucket.take():
            raise RateLimited(
                f"key '{name}' is limited to {bucket.rate:g} requests per second in each replica", bucket.wait_s
            )
        return name


class RateLimited(RequestError):
    """A request that exceeds its key's rate or quota."""

    def __init__(self, message: str, wait_s: float, code: str = "rate_limited") -> None:
        super().__init__(429, code, message)
        self.retry_after_s = max(1, math.ceil(wait_s))


class _TokenBucket:
    """A token bucket: `rate` requests per second, with a small burst."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._capacity = max(1.0, rate * _BURST_S)
        self._tokens, self._updated = self._capacity, time.monotonic()

    def take(self) -> bool:
        """Take a token; return False if there is none."""
        now = time.monotonic()
        self._tokens = min(self._capacity, self._tokens + (now - self._updated) * self.rate)
        self._updated = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    @property
    def wait_s(self) -> float:
        """Seconds until the next token."""
        return (1.0 - self._tokens) / self.rate
