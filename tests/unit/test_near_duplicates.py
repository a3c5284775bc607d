"""Near-duplicates by MinHash."""

import numpy as np
import pytest

from trainer.data.prepare.minhash import (
    band_hashes,
    candidate_pairs,
    group_near_duplicates,
    jaccard_similarity,
)


def test_similarity_is_the_share_of_common_shingles():
    assert jaccard_similarity("Where is my card", "where  is my CARD") == 1.0
    assert jaccard_similarity("abcdef", "abcdeg") == pytest.approx(1 / 3)
    assert jaccard_similarity("a", "b") == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_near_pairs_are_found_and_far_ones_are_not(threshold):
    rng = np.random.default_rng(0)
    texts: list[str] = []
    for _ in range(300):
        words = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(12)]
        texts.append(" ".join(words))
        for index in rng.choice(12, 2, replace=False):
            words[index] = words[index][:-1] + "z"
        texts.append(" ".join(words))
    close = {(row, row + 1) for row in range(0, 600, 2) if jaccard_similarity(texts[row], texts[row + 1]) >= threshold}
    bands = band_hashes(texts, threshold)
    near = {
        pair
        for band in bands
        for pair in candidate_pairs(band, np.arange(600))
        if jaccard_similarity(texts[pair[0]], texts[pair[1]]) >= threshold
    }
    assert near <= close and len(near) >= 0.97 * len(close)
    groups = group_near_duplicates(near, texts.__getitem__, threshold)
    assert groups == {later: earlier for earlier, later in near}


def test_groups_join_through_other_rows_and_keep_the_first():
    texts = {1: "abcdefghij", 4: "abcdefghijk", 9: "abcdefghijkl", 5: "zzzzzzzz"}
    assert group_near_duplicates([(4, 9), (1, 4), (5, 9)], texts.__getitem__, 0.8) == {4: 1, 9: 1}


def test_bands_do_not_depend_on_the_other_texts():
    texts = ["one text here", "another text there", "short", "x"]
    together = band_hashes(texts, 0.8)
    assert np.array_equal(together[:, 1:2], band_hashes(texts[1:2], 0.8))
    assert band_hashes([], 0.8).shape == (len(together), 0)
