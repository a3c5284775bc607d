"""Rows are held out by their own content and the seed, never by their position or by other rows."""

import numpy as np
import pytest

from trainer.contract.row_hash import hash_contents, hash_position
from trainer.data.parts import TEST, TRAIN, VALIDATION
from trainer.data.prepare.split import MIN_STRATIFIED_ROWS, split_by_hash, split_by_time, stratify_moves

KEYS = hash_contents([f"row {n}" for n in range(20_000)])


def parts(keys=KEYS, **changes):
    return split_by_hash(keys, **{"validation": 0.1, "test": 0.2, "seed": 1, **changes})


def test_shares_are_about_as_requested():
    counts = np.bincount(parts(), minlength=3) / len(KEYS)
    assert counts == pytest.approx([0.7, 0.1, 0.2], abs=0.015)  # over four standard deviations


def test_neither_position_nor_other_rows_matter_and_the_seed_does():
    order = np.random.default_rng(0).permutation(len(KEYS))
    assert np.array_equal(parts(KEYS[order]), parts()[order])
    assert np.array_equal(parts(KEYS[:500]), parts()[:500])
    assert (parts(seed=2) != parts()).mean() > 0.3


def test_equal_rows_share_a_part():
    by_key = parts(np.repeat(KEYS[:100], 5)).reshape(100, 5)
    assert (by_key == by_key[:, :1]).all()


def test_a_part_with_a_share_of_zero_gets_no_rows():
    assert set(parts(validation=0.0, test=0.0)) == {TRAIN}
    assert set(parts(test=0.0)) == {TRAIN, VALIDATION}


def test_a_larger_share_only_adds_rows():
    small, large = parts(validation=0.0, test=0.1) == TEST, parts(validation=0.0, test=0.3) == TEST
    assert (large | ~small).all()


def test_positions_are_evenly_spread():
    tenths = np.histogram(hash_position(KEYS, 7), bins=10, range=(0, 1))[0]
    assert tenths.min() > 1800 and tenths.max() < 2200


def test_a_split_by_time_holds_out_the_newest_rows():
    assert split_by_time(np.arange(10), 7, 9).tolist() == [TRAIN] * 7 + [VALIDATION] * 2 + [TEST]


@pytest.mark.parametrize(
    ("counts", "moves"),
    [
        ([8, 1, 1], []),
        ([9, 1, 0], [(0, TRAIN, TEST)]),
        ([MIN_STRATIFIED_ROWS, 0, 0], [(0, TRAIN, TEST), (0, TRAIN, VALIDATION)]),
        ([MIN_STRATIFIED_ROWS - 1, 0, 0], []),
        ([0, 0, 2], [(0, TEST, TRAIN)]),
        ([0, 0, 0], []),
    ],
)
def test_moves_that_put_a_class_into_every_part(counts, moves):
    assert stratify_moves(np.array([counts]), 0.1, 0.1) == moves


def test_content_keys_and_parts_are_pinned():
    """A change here moves every user's rows between the parts."""
    assert hash_contents(["a", "", "é"]).tolist() == [3405396810240292928, 13020603013274838756, 3394012004367669963]
    assert parts(hash_contents(list("abcdefgh"))).tolist() == [VALIDATION, TRAIN, TRAIN, TEST, *[TRAIN] * 4]
