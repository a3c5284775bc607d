"""Read a column of texts as points in time, many rows at a time.

Texts that differ only in their digits have one shape, such as 0000-00-00 00:00:00+00. A column has few shapes. One match
per shape says where its parts are; numpy then reads the parts of all its rows.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.values.moments import EARLIEST, LATEST, match_moment, parse_moment

# Longer texts, texts that are not in ASCII, and the rows of rare shapes are read one by one.
_MAX_CHARS = 40
_MAX_SHAPES = 32
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND


def parse_moments(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the points in time of a string column as `parse_moment` reads them, int64, and a mask of those texts.

    Other rows, and null, have the time 0 and are not in the mask.
    """
    moments, is_moment = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
    trimmed = pc.utf8_trim_whitespace(texts)
    sizes = pc.fill_null(pc.binary_length(trimmed), 0).to_numpy()
    is_simple = pc.fill_null(pc.string_is_ascii(trimmed), False).to_numpy(zero_copy_only=False) & (sizes <= _MAX_CHARS)
    left = np.flatnonzero((sizes > 0) & ~is_simple).tolist()
    n_shapes = 0
    for size in np.unique(sizes[is_simple & (sizes > 0)]).tolist():
        rows = np.flatnonzero(is_simple & (sizes == size))
        letters = np.frombuffer("".join(trimmed.take(pa.array(rows)).to_pylist()).encode(), np.uint8)
        letters = letters.reshape(len(rows), size)
        for shape, members in _group_by_shape(letters):
            n_shapes += 1
            match = match_moment(shape) if n_shapes <= _MAX_SHAPES else None
            if match is None:
                left += rows[members].tolist()
            else:
                moments[rows[members]], is_moment[rows[members]] = _read_parts(match, letters[members])
    for row in left:
        moment = parse_moment(trimmed[row].as_py())
        if moment is not None:
            moments[row], is_moment[row] = moment, True
    return moments, is_moment


def _group_by_shape(letters: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return each shape, with 0 for every digit, and its rows. `letters` is uint8 of shape (rows, characters)."""
    is_digit = (letters >= ord("0")) & (letters <= ord("9"))
    shapes = np.where(is_digit, np.uint8(ord("0")), letters)
    keys = np.ascontiguousarray(shapes).view(f"S{shapes.shape[1]}").ravel()
    if (keys == keys[0]).all():
        return [(keys[0].decode(), np.arange(len(keys)))]
    distinct, group = np.unique(keys, return_inverse=True)
    return [(shape.decode(), np.flatnonzero(group == number)) for number, shape in enumerate(distinct)]


def _read_parts(match: re.Match[str], letters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points in time of texts whose shape `match` describes, and whether each is valid."""

    def part(group: int, default: int) -> np.ndarray:
        start, end = match.span(group)
        return _number(letters, start, end) if start >= 0 else np.full(len(letters), default, np.int64)

    year, month, day = part(1, 1), part(2, 1), part(3, 1)
    hour, minute, second = part(4, 0), part(5, 0), part(6, 0)
    fraction = np.zeros(len(letters), np.int64)
    if match[7]:
        start, end = match.span(7)[0], min(match.end(7), match.start(7) + 6)
        fraction = _number(letters, start, end) * 10 ** (6 - (end - start))
    is_valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    is_valid &= (hour < 24) & (minute < 60) & (second < 60)
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    first, next_first = (part.astype("datetime64[D]").astype(np.int64) for part in (months, months + 1))
    is_valid &= day <= next_first - first
    moments = (first + day - 1) * _DAY + ((hour * 60 + minute) * 60 + second) * _SECOND + fraction
    offset, has_offset = _read_offset(match, letters)
    moments = moments - offset
    is_valid &= has_offset & (moments >= EARLIEST) & (moments <= LATEST)
    return np.where(is_valid, moments, 0), is_valid


def _read_offset(match: re.Match[str], letters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of the zones in microseconds, and whether each is in range."""
    none = np.zeros(len(letters), np.int64)
    zone, start = match[8], match.start(8)
    if zone is None or zone[0] not in "+-":
        return none, np.ones(len(letters), bool)
    digits = letters[:, [start + index for index, letter in enumerate(zone) if letter == "0"]]
    hours, minutes, seconds = (
        _number(digits, begin, begin + 2) if begin < digits.shape[1] else none for begin in (0, 2, 4)
    )
    sign = -1 if zone[0] == "-" else 1
    offset = sign * (hours * 3600 + minutes * 60 + seconds) * _SECOND
    return offset, (hours < 24) & (minutes < 60) & (seconds < 60)


def _number(letters: np.ndarray, start: int, end: int) -> np.ndarray:
    """Return the number in the digits from `start` to `end` of each row, int64."""
    number = np.zeros(len(letters), np.int64)
    for column in range(start, end):
        number = number * 10 + (letters[:, column].astype(np.int64) - ord("0"))
    return number
