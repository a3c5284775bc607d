"""Verdicts from comparing all rows: duplicates, contradicting labels, leaks between parts."""

import numpy as np
import pytest

from trainer.data.prepare.verdicts import CONTRADICTING, DUPLICATE, IN_TRAIN, IN_VALIDATION, UNKNOWN, compare_rows

A, B, C, D, E, F = range(6)


@pytest.mark.parametrize(
    ("rows", "verdicts"),
    [  # (key, part, target)
        ([(A, 0, 0), (B, 0, 0)], [0, 0]),
        ([(A, 0, 0), (A, 0, 0), (A, 0, 0)], [0, DUPLICATE, DUPLICATE]),
        ([(A, 0, 0), (A, 0, 1)], [CONTRADICTING, CONTRADICTING]),
        ([(A, 0, 0), (A, 2, 0)], [0, IN_TRAIN]),
        ([(A, 0, 0), (A, 1, 0), (A, 2, 0)], [0, IN_TRAIN, IN_TRAIN]),
        ([(A, 1, 0), (A, 2, 0)], [0, IN_VALIDATION]),
        ([(A, 2, 0), (A, 2, 0)], [0, DUPLICATE]),
        ([(A, 0, 0), (A, 2, 1)], [0, IN_TRAIN]),
        ([(A, 0, 0), (A, 2, 0), (A, 2, 1)], [0, CONTRADICTING, CONTRADICTING]),
        ([(A, 2, -1), (B, 2, 0)], [UNKNOWN, 0]),
    ],
)
def test_verdicts(rows, verdicts):
    keys, parts, targets = (np.array(column) for column in zip(*rows, strict=True))
    assert compare_rows(keys.astype(np.uint64), parts, targets, set()).tolist() == verdicts


def test_an_allowed_verdict_is_not_given():
    keys, parts, targets = np.array([A, A, A, B, B], np.uint64), np.array([0, 0, 2, 0, 0]), np.array([0, 0, 0, 0, 1])
    assert compare_rows(keys, parts, targets, {DUPLICATE}).tolist() == [0, 0, IN_TRAIN, CONTRADICTING, CONTRADICTING]
    assert compare_rows(keys, parts, targets, {IN_TRAIN, CONTRADICTING}).tolist() == [0, DUPLICATE, 0, 0, 0]
    assert compare_rows(keys[:0], parts[:0], targets[:0], set()).tolist() == []


def test_a_text_in_three_parts_is_compared_with_each_earlier_part():
    keys, parts, targets = np.array([A, A, A], np.uint64), np.array([0, 1, 2]), np.zeros(3, int)
    assert compare_rows(keys, parts, targets, {IN_TRAIN}).tolist() == [0, 0, IN_VALIDATION]
    assert compare_rows(keys, parts, targets, {IN_TRAIN, IN_VALIDATION}).tolist() == [0, 0, 0]
