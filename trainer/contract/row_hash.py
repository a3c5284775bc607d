"""Hash rows by their content, and map the hashes to numbers that decide a row's part or its position in a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def hash_contents(values: Sequence[str] | Sequence[bytes]) -> np.ndarray:
    """Return one uint64 for each value, computed from its content alone (BLAKE2b)."""
    raws = (value.encode() if isinstance(value, str) else value for value in values)
    return np.frombuffer(b"".join(hashlib.blake2b(raw, digest_size=8).digest() for raw in raws), dtype="<u8")


def hash_position(keys: np.ndarray, seed: int, purpose: str = "split") -> np.ndarray:
    """Return a number in [0, 1) for each key: evenly spread, equal for equal keys, different for each seed and purpose.

    XORs each key with a digest of seed and purpose, then applies the finalizer of SplitMix64 (with overflow). Without
    the purpose, a sample with the seed of the split would select exactly the rows that are held out.
    """
    salt = int.from_bytes(hashlib.blake2b(f"{purpose} {seed}".encode(), digest_size=8).digest(), "little")
    return (mix_bits(keys ^ np.uint64(salt)) >> np.uint64(11)).astype(np.float64) / 2.0**53


def mix_bits(keys: np.ndarray) -> np.ndarray:
    """Return uint64 keys in which every bit depends on all bits of `keys`; equal keys stay equal, others differ."""
    with np.errstate(over="ignore"):
        mixed = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
