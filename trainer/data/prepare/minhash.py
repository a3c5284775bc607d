"""Near-duplicates by MinHash: texts that share most of their shingles, which are pieces of five bytes.

Broder 1997 (resemblance); Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3 (banding). Candidate
pairs come from the bands of the signatures. Each candidate pair is then compared exactly, so no text is left out by
chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

_SHINGLE_BYTES = 5
_HASHES = 64
_SLICE_CHARS = 1 << 22
_PRIME = np.uint64((1 << 31) - 1)


def shingles(text: str) -> np.ndarray:
    """Return the distinct five-byte shingles of a text, lower-cased and with single spaces, uint64, sorted."""
    return np.unique(_all_shingles(text))


def _all_shingles(text: str) -> np.ndarray:
    """Return the shingle that starts at each byte, uint64; a text under five bytes is padded with zeros."""
    data = np.frombuffer(" ".join(text.lower().split()).encode(), np.uint8).astype(np.uint64)
    if len(data) < _SHINGLE_BYTES:
        data = np.concatenate([data, np.zeros(_SHINGLE_BYTES - len(data), np.uint64)])
    n_shingles = len(data) - _SHINGLE_BYTES + 1
    values = np.zeros(n_shingles, np.uint64)
    for offset in range(_SHINGLE_BYTES):
        values = (values << np.uint64(8)) | data[offset : n_shingles + offset]
    return values


def jaccard_similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of two texts: the shingles in both divided by the shingles in either."""
    ours, theirs = shingles(one), shingles(other)
    common = len(np.intersect1d(ours, theirs, assume_unique=True))
    return common / (len(ours) + len(theirs) - common)


def band_hashes(texts: list[str], threshold: float) -> np.ndarray:
    """Return uint64 band hashes, shape (bands, texts).

    Two texts whose similarity is at least `threshold` agree in at least one band with a probability of 99 % or more.
    """
    n_rows = _rows_per_band(threshold)
    n_bands = _HASHES // n_rows
    parts = [_band_hashes(part, n_bands, n_rows) for part in _slices(texts)]
    return np.concatenate(parts, axis=1) if parts else np.empty((n_bands, 0), np.uint64)


def _slices(texts: list[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of about four million characters: hashing takes 40 bytes of memory per character."""
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


def _band_hashes(texts: list[str], n_bands: int, n_rows: int) -> np.ndarray:
    per_text = [_all_shingles(text) for text in texts]
    starts = np.cumsum([0, *map(len, per_text[:-1])])
    joined = np.concatenate(per_text)
    # Fold to 31 bits, so that products with the 31-bit factors fit into 64 bits.
    folded = ((joined >> np.uint64(20)) ^ joined) % _PRIME
    rng = np.random.default_rng(5)
    factors = rng.integers(1, int(_PRIME), _HASHES, dtype=np.uint64)
    offsets = rng.integers(0, int(_PRIME), _HASHES, dtype=np.uint64)
    bands = np.zeros((n_bands, len(texts)), np.uint64)
    for number in range(n_bands * n_rows):
        minima = np.minimum.reduceat((folded * factors[number] + offsets[number]) % _PRIME, starts)
        band = number // n_rows
        with np.errstate(over="ignore"):
            bands[band] = (bands[band] ^ minima) * np.uint64(0x9E3779B97F4A7C15)
    return bands


def _rows_per_band(threshold: float) -> int:
    """Return the largest band size with which a pair at the threshold is missed at most once in a hundred times."""
    for rows in (16, 8, 4, 3, 2):
        if (1 - threshold**rows) ** (_HASHES // rows) <= 0.01:
            return rows
    return 1


def group_near_duplicates(
    candidates: Iterable[tuple[int, int]], text_of: Callable[[int], str], threshold: float
) -> dict[int, int]:
    """Return {row: first row of its group} for near-duplicates of an earlier row, directly or through other rows."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while parent.get(row, row) != row:
            parent[row] = parent.get(parent[row], parent[row])
            row = parent[row]
        return row

    for one, other in candidates:
        first, second = sorted((root(one), root(other)))
        if first != second and jaccard_similarity(text_of(one), text_of(other)) >= threshold:
            parent[second] = first
    return {row: root(row) for row in list(parent) if root(row) != row}


def candidate_pairs(band: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs (earlier row, later row) of rows with the same band hash.

    A row is paired with the previous row and with the first row that have its hash. `rows` are the row numbers,
    ascending.
    """
    if not len(rows):
        return
    order = np.argsort(band, kind="stable")
    hashes, numbers = band[order], rows[order]
    is_new = np.concatenate([[True], hashes[1:] != hashes[:-1]])
    first = numbers[np.maximum.accumulate(np.where(is_new, np.arange(len(is_new)), 0))]
    for index in np.flatnonzero(~is_new):
        yield int(first[index]), int(numbers[index])
        if first[index] != numbers[index - 1]:
            yield int(numbers[index - 1]), int(numbers[index])
