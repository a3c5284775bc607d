"""Mixtures: rows by the weights of their files, curricula by epochs, and steps of about equal size."""

import numpy as np
import pytest
from pydantic import ValidationError

from trainer.optim.mixture_plan import SourceWeight, epoch_rows, epoch_tokens
from trainer.optim.token_plan import plan_mixed_steps
from trainer.spec.mixture import MixturePart

SOURCES = np.repeat([0, 1, 2], [60, 30, 10])
LENGTHS = np.where(SOURCES == 2, 40, 10)


def counts(weights, epoch):
    return np.bincount(SOURCES[epoch_rows(SOURCES, LENGTHS, weights, 7, epoch)], minlength=3)


def test_rows_are_used_as_often_as_their_weight_says():
    weights = [SourceWeight(0.5), SourceWeight(2.0), SourceWeight(1.0)]
    np.testing.assert_array_equal(counts(weights, 1), [30, 60, 10])
    rows = epoch_rows(SOURCES, LENGTHS, weights, 7, 1)
    assert set(np.bincount(rows, minlength=100)[60:90]) == {2}
    np.testing.assert_array_equal(rows, epoch_rows(SOURCES, LENGTHS, weights, 7, 1))
    # The halves of two epochs are drawn anew.
    assert set(rows.tolist()) != set(epoch_rows(SOURCES, LENGTHS, weights, 7, 2).tolist())


def test_a_source_that_is_left_out_leaves_its_room_to_the_others():
    weights = [SourceWeight(1.0, to_epoch=2), SourceWeight(1.0), SourceWeight(1.0, from_epoch=2)]
    total = epoch_tokens(SOURCES, LENGTHS, weights)
    assert total == LENGTHS.sum()
    for epoch in (1, 2, 3):
        rows = epoch_rows(SOURCES, LENGTHS, weights, 7, epoch)
        assert abs(LENGTHS[rows].sum() - total) <= 40
    assert counts(weights, 1)[2] == 0 and counts(weights, 3)[0] == 0
    np.testing.assert_array_equal(counts(weights, 2), [60, 30, 10])


@pytest.mark.parametrize("n_steps", [1, 7, 60, 100])
def test_every_row_is_in_one_step_and_no_step_is_empty(n_steps):
    rows = np.repeat(np.arange(100), 1)
    steps = plan_mixed_steps(rows, LENGTHS, 3, 1, n_steps)
    assert len(steps) == n_steps and all(len(step) for step in steps)
    np.testing.assert_array_equal(np.sort(np.concatenate(steps)), rows)
    if n_steps == 7:
        sizes = [LENGTHS[step].sum() for step in steps]
        assert max(sizes) - min(sizes) <= 80


def test_epochs_of_a_mixture_are_in_order():
    with pytest.raises(ValidationError, match="is before from_epoch"):
        MixturePart(files="a.jsonl", from_epoch=3, to_epoch=2)
