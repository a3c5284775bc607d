"""The token plan: a pure function, complete, steps of equal size, and shares without gap or overlap."""

import numpy as np
import pytest

from trainer.optim import token_plan

LENGTHS = np.random.default_rng(0).integers(4, 300, size=1003).astype(np.int32)


@pytest.mark.parametrize("tokens", [1, 300, 2048, 10**7])
def test_every_row_once_an_epoch(tokens):
    steps = token_plan.plan_steps(LENGTHS, seed=1, epoch=2, tokens_per_step=tokens)
    assert sorted(np.concatenate(steps)) == list(range(len(LENGTHS)))
    assert len(steps) == token_plan.steps_per_epoch(LENGTHS, tokens)
    assert all(len(step) for step in steps)


def test_steps_have_about_as_many_tokens_as_asked_for():
    sizes = [LENGTHS[step].sum() for step in token_plan.plan_steps(LENGTHS, 1, 1, 2048)]
    assert abs(np.mean(sizes) - 2048) < 40 and max(sizes) - min(sizes) < 2 * 300


def test_one_long_row_does_not_leave_a_step_empty():
    lengths = np.array([8192, *[10] * 50], np.int32)
    steps = token_plan.plan_steps(lengths, 0, 1, 64)
    assert [len(step) for step in steps] == [51]
    assert [list(step) for step in token_plan.plan_steps(np.array([5]), 0, 1, 8)] == [[0]]


def test_same_arguments_same_plan_and_another_epoch_another_order():
    first = token_plan.plan_steps(LENGTHS, 1, 1, 2048)
    for again, same in ((token_plan.plan_steps(LENGTHS, 1, 1, 2048), True), (token_plan.plan_steps(LENGTHS, 1, 2, 2048), False)):  # fmt: skip
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)) is same


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens_per_pass", [None, 512, 40])
def test_workers_share_a_step_in_as_many_passes(workers, tokens_per_pass):
    sizes = LENGTHS[token_plan.plan_steps(LENGTHS, 1, 1, 4096)[0]]
    shares = [token_plan.share_step(sizes, rank, workers, tokens_per_pass) for rank in range(workers)]
    assert sorted(np.concatenate([share.positions for share in shares])) == list(range(len(sizes)))
    assert len({len(share.passes) for share in shares}) == 1
    loads = [sizes[share.positions].sum() for share in shares]
    assert max(loads) - min(loads) <= sizes.max()
    for share in shares:
        assert sorted(np.concatenate(share.passes)) == list(range(len(share.positions)))
        for rows in share.passes:
            assert tokens_per_pass is None or len(rows) <= 1 or sizes[share.positions[rows]].sum() <= tokens_per_pass


def test_a_worker_without_rows():
    shares = [token_plan.share_step(np.array([7]), rank, 2, None) for rank in range(2)]
    assert [len(share.positions) for share in shares] == [1, 0] and [len(share.passes) for share in shares] == [1, 1]
