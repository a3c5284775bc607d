"""Near-duplicates by MinHash: texts that share most of their five-character pieces.

Broder 1997 (resemblance), Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3 (banding). Candidates come
from bands of the signature; each candidate pair is then compared exactly, so that what is left out is really near.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

_PIECE = 5
_HASHES = 64
_SLICE_CHARS = 1 << 22
_PRIME = np.uint64((1 << 31) - 1)


def pieces(text: str) -> np.ndarray:
    """Return the different pieces of five bytes of a text, lower-cased and with single spaces, uint64, sorted."""
    return np.unique(_windows(text))


def _windows(text: str) -> np.ndarray:
    data = np.frombuffer(" ".join(text.lower().split()).encode(), np.uint8).astype(np.uint64)
    if len(data) < _PIECE:
        data = np.concatenate([data, np.zeros(_PIECE - len(data), np.uint64)])
    found = np.zeros(len(data) - _PIECE + 1, np.uint64)
    for at in range(_PIECE):
        found = (found << np.uint64(8)) | data[at : len(data) - _PIECE + 1 + at]
    return found


def similarity(one: str, other: str) -> float:
    """Return the share of pieces that two texts have in common (Jaccard)."""
    ours, theirs = pieces(one), pieces(other)
    common = len(np.intersect1d(ours, theirs, assume_unique=True))
    return common / (len(ours) + len(theirs) - common)


def bands(texts: list[str], threshold: float) -> np.ndarray:
    """Return uint64 band hashes, shape (bands, texts): texts above `threshold` almost surely agree in one of them."""
    n_rows = _rows_per_band(threshold)
    n_bands = _HASHES // n_rows
    found = [_bands_of(part, n_bands, n_rows) for part in _of_bounded_size(texts)]
    return np.concatenate(found, axis=1) if found else np.empty((n_bands, 0), np.uint64)


def _of_bounded_size(texts: list[str]) -> Iterator[list[str]]:
    """Cut a list where its texts reach some million characters: hashing takes 40 bytes for each."""
    part: list[str] = []
    size = 0
    for text in texts:
        part.append(text)
        size += len(text)
        if size >= _SLICE_CHARS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _bands_of(texts: list[str], n_bands: int, n_rows: int) -> np.ndarray:
    windows = [_windows(text) for text in texts]
    starts = np.cumsum([0, *map(len, windows[:-1])])
    # Folded to 31 bits: products with the 31-bit factors then fit into 64.
    joined = np.concatenate(windows)
    folded = ((joined >> np.uint64(20)) ^ joined) % _PRIME
    rng = np.random.default_rng(5)
    factors = rng.integers(1, int(_PRIME), _HASHES, dtype=np.uint64)
    offsets = rng.integers(0, int(_PRIME), _HASHES, dtype=np.uint64)
    found = np.zeros((n_bands, len(texts)), np.uint64)
    for at in range(n_bands * n_rows):
        lowest = np.minimum.reduceat((folded * factors[at] + offsets[at]) % _PRIME, starts)
        band = at // n_rows
        with np.errstate(over="ignore"):
            found[band] = (found[band] ^ lowest) * np.uint64(0x9E3779B97F4A7C15)
    return found


def _rows_per_band(threshold: float) -> int:
    """Return the largest size of a band with which a pair at the threshold is missed at most once in a hundred."""
    for rows in (16, 8, 4, 3, 2):
        if (1 - threshold**rows) ** (_HASHES // rows) <= 0.01:
            return rows
    return 1


def groups(candidates: Iterable[tuple[int, int]], text_of: Callable[[int], str], threshold: float) -> dict[int, int]:
    """Return row -> first row of its group, for every row that is near an earlier one, directly or over others."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while parent.get(row, row) != row:
            parent[row] = parent.get(parent[row], parent[row])
            row = parent[row]
        return row

    for one, other in candidates:
        first, second = sorted((root(one), root(other)))
        if first != second and similarity(text_of(one), text_of(other)) >= threshold:
            parent[second] = first
    return {row: root(row) for row in list(parent) if root(row) != row}


def pairs(band: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (earlier, later) for rows with the same band hash, each with the one before it and the first of them.

    `rows` are the rows' numbers, ascending.
    """
    if not len(rows):
        return
    order = np.argsort(band, kind="stable")
    hashes, numbers = band[order], rows[order]
    new = np.concatenate([[True], hashes[1:] != hashes[:-1]])
    first = numbers[np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))]
    for at in np.flatnonzero(~new):
        yield int(first[at]), int(numbers[at])
        if first[at] != numbers[at - 1]:
            yield int(numbers[at - 1]), int(numbers[at])
