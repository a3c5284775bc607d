"""Quantiles from one pass in bounded memory, the same to the last bit for every order and cut of the rows.

Values are int64 keys that keep their order (a float64's bits, or microseconds). Up to `SIZE` distinct keys are kept as
they are, with counts: quantiles are exact. Beyond that the keys share buckets of 2**level, with the lowest level at which
there are at most `SIZE` buckets; each keeps its smallest and largest key and its count. A part of the rows never needs
a higher level than all rows do, so merging in any order ends in the same buckets.

Error beyond `SIZE` distinct values: the true quantile lies in the same bucket as the one returned. For floats a bucket
is at most a fixed fraction of its values wide; see docs/features.md for what that comes to.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Most buckets of one column: 24 bytes each.
SIZE = 16_384
_SIGN = np.int64(np.iinfo(np.int64).max)


class Sketch(NamedTuple):
    """Buckets in rising order; each array is int64 of shape (n,)."""

    level: int
    low: np.ndarray
    """Smallest key of each bucket."""
    high: np.ndarray
    """Largest key of each bucket."""
    counts: np.ndarray

    @property
    def total(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())


def of(keys: np.ndarray) -> Sketch:
    """Return the sketch of int64 `keys`, shape (n,)."""
    distinct, counts = np.unique(keys, return_counts=True)
    return _coarsened(Sketch(0, distinct, distinct, counts.astype(np.int64)))


def merge(one: Sketch, other: Sketch) -> Sketch:
    """Return the sketch of the rows of both."""
    low = np.concatenate([one.low, other.low])
    order = np.argsort(low, kind="stable")
    high, counts = np.concatenate([one.high, other.high]), np.concatenate([one.counts, other.counts])
    return _coarsened(Sketch(max(one.level, other.level), low[order], high[order], counts[order]))


def at_rank(sketch: Sketch, rank: int, *, of_floats: bool) -> float:
    """Return the value of `rank` (0: the smallest); inside a bucket values are taken as evenly spread."""
    ends = np.cumsum(sketch.counts)
    bucket = int(np.searchsorted(ends, rank, side="right"))
    low, high = (_value(keys[bucket], of_floats) for keys in (sketch.low, sketch.high))
    count = int(sketch.counts[bucket])
    return _between(low, high, (rank - (int(ends[bucket]) - count)) / (count - 1)) if count > 1 else low


def quantile(sketch: Sketch, share: float, *, of_floats: bool = True) -> float:
    """Return the value under which `share` (0 to 1) of the values lie, linear between neighbours as numpy's default."""
    place = (sketch.total - 1) * share
    below = int(place)
    low = at_rank(sketch, below, of_floats=of_floats)
    if place == below:
        return low
    return _between(low, at_rank(sketch, below + 1, of_floats=of_floats), place - below)


def share_up_to(sketch: Sketch, edges: list[float], *, of_floats: bool = True) -> list[float]:
    """Return the share of values that are at most each of the rising `edges`."""
    found = []
    ends = np.cumsum(sketch.counts)
    lows, highs = ((floats_of(keys) if of_floats else keys.astype(np.float64)) for keys in (sketch.low, sketch.high))
    for edge in edges:
        full = int(np.searchsorted(highs, edge, side="right"))  # buckets that lie wholly at or under the edge
        count = float(ends[full - 1]) if full else 0.0
        if full < len(lows) and lows[full] <= edge:  # the edge cuts this one
            width = float(highs[full]) - float(lows[full])
            count += int(sketch.counts[full]) * (edge - float(lows[full])) / width
        found.append(count / sketch.total)
    return found


def keys_of(values: np.ndarray) -> np.ndarray:
    """Return int64 keys in the order of finite float64 `values`; 0.0 and -0.0 have one key."""
    bits = (values + 0.0).view(np.int64)
    return np.where(bits < 0, bits ^ _SIGN, bits)


def floats_of(keys: np.ndarray) -> np.ndarray:
    """Return the float64 values of `keys_of`."""
    keys = np.asarray(keys, np.int64)
    return np.where(keys < 0, keys ^ _SIGN, keys).view(np.float64)


def _value(key: np.int64, of_floats: bool) -> float:
    return float(floats_of(np.array([key]))[0]) if of_floats else float(key)


def _between(low: float, high: float, share: float) -> float:
    """Written so that two large numbers of different sign do not overflow, and equal ones stay what they are."""
    return low if low == high else low * (1.0 - share) + high * share


def _coarsened(sketch: Sketch) -> Sketch:
    """Join buckets of one key at the sketch's level, after raising the level just as far as `SIZE` asks."""
    if len(sketch.low) == 0:
        return sketch

    def n_buckets(level: int) -> int:
        return 1 + int(np.count_nonzero(np.diff(sketch.low >> level)))

    level, top = sketch.level, 63
    if n_buckets(level) > SIZE:  # fewer buckets the higher the level, so it can be halved to
        while top - level > 1:
            middle = (level + top) // 2
            level, top = (middle, top) if n_buckets(middle) > SIZE else (level, middle)
        level = top
    starts = np.concatenate([[0], np.flatnonzero(np.diff(sketch.low >> level)) + 1])
    return Sketch(
        level,
        np.minimum.reduceat(sketch.low, starts),
        np.maximum.reduceat(sketch.high, starts),
        np.add.reduceat(sketch.counts, starts),
    )
