"""Quotas of tokens for API keys: a key that has used its tokens up waits until time has given it more."""

from __future__ import annotations

import time
from typing import Any

from serve.asgi.auth import RateLimited

# Field of a key -> seconds in which it may use so many tokens.
_PERIODS = {"tokens_per_minute": 60.0, "tokens_per_day": 86400.0}


class TokenQuotas:
    """What each key may still use. Prompts and answers count; a request is let in while anything is left."""

    def __init__(self, keys: list[dict[str, Any]], replicas: int = 1) -> None:
        """Each replica gets its share of a key's requests, so it enforces that share of the key's quotas."""
        self._quotas = {
            key["name"]: [_Quota(field, key[field] / replicas, _PERIODS[field]) for field in _PERIODS if key.get(field)]
            for key in keys
        }

    def check(self, key: str) -> None:
        """Raise `RateLimited` if the key has used a quota up."""
        for quota in self._quotas.get(key, ()):
            if (wait_s := quota.wait_s()) > 0:
                raise RateLimited(
                    f"key '{key}' has used its {quota.tokens:g} {quota.name} in this replica; retry in {wait_s:.0f} s",
                    wait_s,
                    "quota_exceeded",
                )

    def charge(self, key: str, tokens: int) -> None:
        """Take tokens that a request of the key used."""
        for quota in self._quotas.get(key, ()):
            quota.take(tokens)


class _Quota:
    """A number of tokens in a time: full at first, refilled steadily, and negative after a long answer."""

    def __init__(self, field: str, tokens: float, period_s: float) -> None:
        self.name, self.tokens = field.replace("_", " "), tokens
        self._per_s = tokens / period_s
        self._left, self._updated = tokens, time.monotonic()

    def take(self, tokens: int) -> None:
        self._refill()
        self._left -= tokens

    def wait_s(self) -> float:
        """Return the seconds until something is left; 0 or less if there is."""
        self._refill()
        return -self._left / self._per_s

    def _refill(self) -> None:
        now = time.monotonic()
        self._left = min(self.tokens, self._left + (now - self._updated) * self._per_s)
        self._updated = now
