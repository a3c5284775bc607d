"""Quantiles in one pass and bounded memory, identical to the last bit for every order and split of the rows.

Values are int64 keys that preserve their order (a float64's bits, or microseconds). Up to `MAX_BUCKETS` distinct keys
are counted individually: quantiles are exact. Beyond that, keys share buckets of width 2**level. The level is the
lowest that gives at most `MAX_BUCKETS` buckets. Each bucket has its smallest key, its largest key and its count. A
subset of the rows never needs a higher level than all rows, so merging in any order ends in the same buckets.

Error beyond `MAX_BUCKETS` distinct values: the true quantile is in the same bucket as the returned one. For floats the
width of a bucket is at most a fixed fraction of its values; docs/explanation/exact-fits.md has the numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: Maximum number of buckets per column, 24 bytes each.
MAX_BUCKETS = 16_384
_SIGN = np.int64(np.iinfo(np.int64).max)


class Sketch(NamedTuple):
    """Buckets in ascending order; each array is int64 of shape (n,)."""

    level: int
    low: np.ndarray
    """Smallest key of each bucket."""
    high: np.ndarray
    """Largest key of each bucket."""
    counts: np.ndarray

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())


def build_sketch(keys: np.ndarray) -> Sketch:
    """Return the sketch of int64 `keys`, shape (n,)."""
    distinct, counts = np.unique(keys, return_counts=True)
    return _coarsen(Sketch(0, distinct, distinct, counts.astype(np.int64)))


def merge_sketches(first: Sketch, second: Sketch) -> Sketch:
    """Return the sketch of the combined rows."""
    low = np.concatenate([first.low, second.low])
    order = np.argsort(low, kind="stable")
    high, counts = np.concatenate([first.high, second.high]), np.concatenate([first.counts, second.counts])
    return _coarsen(Sketch(max(first.level, second.level), low[order], high[order], counts[order]))


def value_at_rank(sketch: Sketch, rank: int, *, as_floats: bool) -> float:
    """Return the value of `rank` (0: the smallest), assuming that values are evenly spread within a bucket."""
    ends = np.cumsum(sketch.counts)
    bucket = int(np.searchsorted(ends, rank, side="right"))
    low, high = (_value(keys[bucket], as_floats) for keys in (sketch.low, sketch.high))
    count = int(sketch.counts[bucket])
    return _interpolate(low, high, (rank - (int(ends[bucket]) - count)) / (count - 1)) if count > 1 else low


def quantile(sketch: Sketch, share: float, *, as_floats: bool = True) -> float:
    """Return the quantile at `share` (0 to 1), linear between neighbors like numpy's default."""
    position = (sketch.total - 1) * share
    below = int(position)
    low = value_at_rank(sketch, below, as_floats=as_floats)
    if position == below:
        return low
    return _interpolate(low, value_at_rank(sketch, below + 1, as_floats=as_floats), position - below)


def share_up_to(sketch: Sketch, edges: list[float], *, as_floats: bool = True) -> list[float]:
    """Return the share of values that are at most each of the ascending `edges`."""
    shares = []
    ends = np.cumsum(sketch.counts)
    lows, highs = (
        floats_from_keys(keys) if as_floats else keys.astype(np.float64) for keys in (sketch.low, sketch.high)
    )
    for edge in edges:
        full = int(np.searchsorted(highs, edge, side="right"))  # number of buckets entirely at or below the edge
        count = float(ends[full - 1]) if full else 0.0
        if full < len(lows) and lows[full] <= edge:  # the edge falls inside this bucket
            width = float(highs[full]) - float(lows[full])
            count += int(sketch.counts[full]) * (edge - float(lows[full])) / width
        shares.append(count / sketch.total)
    return shares


def keys_from_floats(values: np.ndarray) -> np.ndarray:
    """Return int64 keys in the order of finite float64 `values`; 0.0 and -0.0 have the same key."""
    bits = (values + 0.0).view(np.int64)
    return np.where(bits < 0, bits ^ _SIGN, bits)


def floats_from_keys(keys: np.ndarray) -> np.ndarray:
    """Return the float64 values that `keys_from_floats` made the keys from."""
    keys = np.asarray(keys, np.int64)
    return np.where(keys < 0, keys ^ _SIGN, keys).view(np.float64)


def _value(key: np.int64, as_floats: bool) -> float:
    return float(floats_from_keys(np.array([key]))[0]) if as_floats else float(key)


def _interpolate(low: float, high: float, share: float) -> float:
    """Return the point at `share` of the way, in a form that does not overflow and that leaves equal ends unchanged."""
    return low if low == high else low * (1.0 - share) + high * share


def _coarsen(sketch: Sketch) -> Sketch:
    """Raise the level only as far as `MAX_BUCKETS` requires, and join buckets with the same key at that level."""
    if len(sketch.low) == 0:
        return sketch

    def n_buckets(level: int) -> int:
        return 1 + int(np.count_nonzero(np.diff(sketch.low >> level)))

    level, top = sketch.level, 63
    if n_buckets(level) > MAX_BUCKETS:  # a higher level has fewer buckets, so bisect
        while top - level > 1:
            middle = (level + top) // 2
            level, top = (middle, top) if n_buckets(middle) > MAX_BUCKETS else (level, middle)
        level = top
    starts = np.concatenate([[0], np.flatnonzero(np.diff(sketch.low >> level)) + 1])
    return Sketch(
        level,
        np.minimum.reduceat(sketch.low, starts),
        np.maximum.reduceat(sketch.high, starts),
        np.add.reduceat(sketch.counts, starts),
    )
