"""The batch plan: a pure function, complete, and little padding."""

import numpy as np
import pytest

from trainer.optim import batch_plan

LENGTHS = np.random.default_rng(0).integers(4, 60, size=1003).astype(np.int32)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 2000])
def test_every_row_once_an_epoch(batch_size):
    steps = batch_plan.plan_batches(LENGTHS, seed=1, epoch=2, batch_size=batch_size)
    assert sorted(np.concatenate(steps)) == list(range(len(LENGTHS)))
    assert max(len(step) for step in steps) <= batch_size
    assert len(steps) == batch_plan.steps_per_epoch(len(LENGTHS), batch_size)


def test_same_arguments_same_plan_and_another_epoch_another_order():
    first = batch_plan.plan_batches(LENGTHS, 1, 1, 16)
    assert all(np.array_equal(a, b) for a, b in zip(first, batch_plan.plan_batches(LENGTHS, 1, 1, 16), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, batch_plan.plan_batches(LENGTHS, 1, 2, 16), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, batch_plan.plan_batches(LENGTHS, 2, 1, 16), strict=True))


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_workers_share_a_step_without_gap_or_overlap(workers):
    step = batch_plan.plan_batches(LENGTHS, 1, 1, 32)[0]
    shares = [batch_plan.shard_rows(step, rank, workers) for rank in range(workers)]
    assert sorted(np.concatenate(shares)) == sorted(step)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_rows_of_like_length_share_a_step():
    steps = batch_plan.plan_batches(LENGTHS, 1, 1, 16)
    padded = sum(LENGTHS[step].max() * len(step) for step in steps)
    assert padded / LENGTHS.sum() < 1.05


def test_one_row():
    assert [list(step) for step in batch_plan.plan_batches(np.array([5]), 0, 0, 8)] == [[0]]
