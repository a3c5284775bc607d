"""TODO docstring."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from typing import Any

from cluster.errors import RequestError

# How many requests a key may save up while it is quiet, in seconds of its rate.
_BURST_S = 1.0


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
