"""Held-out rows: by content and seed, never by position."""

import numpy as np

from trainer.data.split import TEST, TRAIN, VALIDATION, content_keys, hold_out

TEXTS = [f"row {n}" for n in range(1000)]
CLASSES = np.arange(1000) % 4
KEYS = content_keys(TEXTS, [str(c) for c in CLASSES])


def parts(keys=KEYS, classes=CLASSES, **changes):
    settings = {"validation": 0.1, "test": 0.2, "seed": 1, "stratify": True, **changes}
    return hold_out(keys, classes, **settings)


def test_shares_hold_in_every_class():
    found = parts()
    for label in range(4):
        counts = np.bincount(found[label == CLASSES], minlength=3)
        assert list(counts) == [175, 25, 50]


def test_position_does_not_matter_and_the_seed_does():
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(parts(KEYS[order], CLASSES[order]), parts()[order])
    assert not np.array_equal(parts(seed=2), parts())


def test_equal_rows_share_a_part():
    keys = np.repeat(KEYS[:100], 5)
    found = parts(keys, np.zeros(500, int)).reshape(100, 5)
    assert (found == found[:, :1]).all()


def test_every_class_keeps_a_row_to_learn_from():
    found = hold_out(KEYS[:3], np.array([0, 1, 1]), validation=0.4, test=0.4, seed=0, stratify=True)
    assert found[0] == TRAIN and TRAIN in found[1:]
    assert hold_out(KEYS[[5, 5]], np.array([0, 0]), validation=0.4, test=0.4, seed=0, stratify=True).tolist() == [
        TRAIN,
        TRAIN,
    ]


def test_nothing_is_held_out_where_files_are_given():
    found = parts(validation=0.0, test=0.0)
    assert set(found) == {TRAIN}
    assert set(parts(test=0.0)) == {TRAIN, VALIDATION}
    assert TEST in parts(stratify=False)


def test_content_keys_do_not_run_cells_together():
    assert content_keys(["ab"], ["c"])[0] != content_keys(["a"], ["bc"])[0]
