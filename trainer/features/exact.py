"""Sums of floats without any rounding, so that no order of rows and no cut into blocks changes the last bit.

Every float64 is a whole number times a power of two. Those whole numbers are added as Python's unbounded integers, in
units of 2**-1126 (2**-2252 for squares); adding integers is exact in every order. Rounding happens once, at the end.
Mean and variance come out correctly rounded: there is no cancellation in exact arithmetic, whatever the offset.
"""

from __future__ import annotations

import math

import numpy as np

#: frexp's exponent of the smallest float64 is -1073, and its mantissa has 53 bits: no shift below is negative.
_UNIT = 1126
#: Limbs have 18 bits, products 36; 2**16 of them stay under 2**53, where float64 (which bincount adds in) is exact.
_LIMB = 18
_CHUNK = 1 << 16


def sums(values: np.ndarray) -> tuple[int, int]:
    """Return the exact sum and the exact sum of squares of finite float64 `values`, shape (n,), in units of this module."""
    total = squares = 0
    for start in range(0, len(values), _CHUNK):
        mantissa, exponent = np.frexp(values[start : start + _CHUNK])
        whole = (mantissa * 2.0**53).astype(np.int64)
        mask = (1 << _LIMB) - 1
        # whole == a * 2**36 + b * 2**18 + c, for negative numbers too: the shift rounds down
        a, b, c = whole >> 2 * _LIMB, (whole >> _LIMB) & mask, whole & mask
        first = int(exponent.min())
        places = exponent - first
        by_place = [np.bincount(places, weights=limb) for limb in (a, b, c, a * a, a * b, a * c, b * b, b * c, c * c)]
        for place in np.flatnonzero(np.bincount(places)):
            sa, sb, sc, aa, ab, ac, bb, bc, cc = (int(limbs[place]) for limbs in by_place)
            shift = int(place) + first - 53 + _UNIT
            total += ((sa << 36) + (sb << 18) + sc) << shift
            squares += ((aa << 72) + (ab << 55) + ((2 * ac + bb) << 36) + (bc << 19) + cc) << 2 * shift
    return total, squares


def mean(total: int, count: int) -> float:
    """Return the correctly rounded mean of `count` > 0 numbers with the exact sum `total`."""
    return total / (count << _UNIT)  # division of integers rounds once


def std(total: int, squares: int, count: int) -> float:
    """Return the standard deviation (of the population: divided by `count`), 0.0 only if all numbers are equal."""
    numerator, denominator = count * squares - total * total, (count << _UNIT) ** 2
    if numerator == 0:
        return 0.0
    # The variance may be beyond a float64 where its root is not, so the root is taken of an integer of 128 bits or more.
    shift = max(0, 130 - numerator.bit_length() + denominator.bit_length())
    shift += shift % 2
    return math.isqrt((numerator << shift) // denominator) / (1 << shift // 2)
