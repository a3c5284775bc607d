"""What all rows together tell: duplicates, contradictions, leaks, near-duplicates."""

import numpy as np
import pytest

from trainer.data.prepare import minhash
from trainer.data.prepare.verdicts import CONTRADICTING, DUPLICATE, IN_TRAIN, IN_VALIDATION, UNKNOWN, compare

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
    assert compare(keys.astype(np.uint64), parts, targets, set()).tolist() == verdicts


def test_what_is_allowed_is_no_verdict():
    keys, parts, targets = np.array([A, A, A, B, B], np.uint64), np.array([0, 0, 2, 0, 0]), np.array([0, 0, 0, 0, 1])
    assert compare(keys, parts, targets, {DUPLICATE}).tolist() == [0, 0, IN_TRAIN, CONTRADICTING, CONTRADICTING]
    assert compare(keys, parts, targets, {IN_TRAIN, CONTRADICTING}).tolist() == [0, DUPLICATE, 0, 0, 0]
    assert compare(keys[:0], parts[:0], targets[:0], set()).tolist() == []


def test_a_text_in_three_parts_is_held_against_each_earlier_one():
    keys, parts, targets = np.array([A, A, A], np.uint64), np.array([0, 1, 2]), np.zeros(3, int)
    assert compare(keys, parts, targets, {IN_TRAIN}).tolist() == [0, 0, IN_VALIDATION]
    assert compare(keys, parts, targets, {IN_TRAIN, IN_VALIDATION}).tolist() == [0, 0, 0]


def test_similarity_is_the_share_of_common_pieces():
    assert minhash.similarity("Where is my card", "where  is my CARD") == 1.0
    assert minhash.similarity("abcdef", "abcdeg") == pytest.approx(1 / 3)
    assert minhash.similarity("a", "b") == 0.0


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_near_pairs_are_found_and_far_ones_are_not(threshold):
    rng = np.random.default_rng(0)
    texts: list[str] = []
    for _ in range(300):
        words = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(12)]
        texts.append(" ".join(words))
        for place in rng.choice(12, 2, replace=False):
            words[place] = words[place][:-1] + "z"
        texts.append(" ".join(words))
    close = {(at, at + 1) for at in range(0, 600, 2) if minhash.similarity(texts[at], texts[at + 1]) >= threshold}
    bands = minhash.bands(texts, threshold)
    found = {
        pair
        for band in bands
        for pair in minhash.pairs(band, np.arange(600))
        if minhash.similarity(texts[pair[0]], texts[pair[1]]) >= threshold
    }
    assert found <= close and len(found) >= 0.97 * len(close)
    groups = minhash.groups(found, texts.__getitem__, threshold)
    assert groups == {later: earlier for earlier, later in found}


def test_groups_join_over_others_and_keep_the_first():
    texts = {1: "abcdefghij", 4: "abcdefghijk", 9: "abcdefghijkl", 5: "zzzzzzzz"}
    assert minhash.groups([(4, 9), (1, 4), (5, 9)], texts.__getitem__, 0.8) == {4: 1, 9: 1}


def test_bands_do_not_depend_on_the_other_texts():
    texts = ["one text here", "another text there", "short", "x"]
    together = minhash.bands(texts, 0.8)
    assert np.array_equal(together[:, 1:2], minhash.bands(texts[1:2], 0.8))
    assert minhash.bands([], 0.8).shape == (len(together), 0)
