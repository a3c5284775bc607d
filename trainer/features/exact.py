"""Sums of floats without rounding: neither the order of rows nor their split into blocks changes the last bit.

Every float64 is an integer times a power of two. These integers are added as Python's unbounded integers, in units of
2**-1126 (2**-2252 for squares); adding integers is exact in every order. Rounding happens once, at the end. Mean and
variance are correctly rounded: exact arithmetic has no cancellation, whatever the offset.
"""

from __future__ import annotations

import math

import numpy as np

#: 1073 + 53: frexp gives the smallest float64 the exponent -1073, and a mantissa has 53 bits, so no shift is negative.
_UNIT = 1126
#: Limbs have 18 bits, products 36; the sum of 2**16 products stays below 2**53, where float64 (used by bincount) is
#: exact.
_LIMB = 18
_CHUNK = 1 << 16


def exact_sums(values: np.ndarray) -> tuple[int, int]:
    """Return the exact sum and sum of squares of finite float64 `values`, shape (n,), in this module's units."""
    total = squares = 0
    for start in range(0, len(values), _CHUNK):
        mantissa, exponent = np.frexp(values[start : start + _CHUNK])
        integer = (mantissa * 2.0**53).astype(np.int64)
        mask = (1 << _LIMB) - 1
        # integer == a * 2**36 + b * 2**18 + c, for negative numbers too: the shift rounds down
        a, b, c = integer >> 2 * _LIMB, (integer >> _LIMB) & mask, integer & mask
        lowest = int(exponent.min())
        offsets = exponent - lowest
        products = (a, b, c, a * a, a * b, a * c, b * b, b * c, c * c)
        by_offset = [np.bincount(offsets, weights=product) for product in products]
        for offset in np.flatnonzero(np.bincount(offsets)):
            sa, sb, sc, aa, ab, ac, bb, bc, cc = (int(sums[offset]) for sums in by_offset)
            shift = int(offset) + lowest - 53 + _UNIT
            total += ((sa << 36) + (sb << 18) + sc) << shift
            squares += ((aa << 72) + (ab << 55) + ((2 * ac + bb) << 36) + (bc << 19) + cc) << 2 * shift
    return total, squares


def exact_mean(total: int, count: int) -> float:
    """Return the correctly rounded mean of `count` > 0 numbers with the exact sum `total`."""
    return total / (count << _UNIT)  # dividing integers rounds once


def exact_std(total: int, squares: int, count: int) -> float:
    """Return the standard deviation of the population (divided by `count`); 0.0 only if all numbers are equal."""
    numerator, denominator = count * squares - total * total, (count << _UNIT) ** 2
    if numerator == 0:
        return 0.0
    # The variance may overflow a float64 even if its root does not, so take the root of an integer of at least 128
    # bits.
    shift = max(0, 130 - numerator.bit_length() + denominator.bit_length())
    shift += shift % 2
    return math.isqrt((numerator << shift) // denominator) / (1 << shift // 2)
