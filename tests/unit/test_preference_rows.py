"""The model inputs of preference rows, and the targets of sampled answers."""

import numpy as np

from trainer.chat.tokens import join_mask
from trainer.preference.grpo import group_advantages, token_weights
from trainer.preference.objectives import rollout_targets
from trainer.preference.rows import (
    answer_start,
    join_label,
    join_pair,
    row_kind,
    sequences_of,
    split_label,
    split_pair,
    with_answer_of,
)
from trainer.spec.method import MethodSpec


def sequence(prompt, answer):
    return join_mask(np.array([*prompt, *answer]), np.array([False] * len(prompt) + [True] * len(answer)))


def test_a_pair_is_one_array_and_back():
    chosen, rejected = sequence([1, 2], [3]), sequence([1, 2], [0, 5, 6])
    row = join_pair(chosen, rejected)
    assert row.dtype == np.int32
    for found, expected in zip(split_pair(row), (chosen, rejected), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [len(part) for part in sequences_of("pair", [row, row])] == [3, 5, 3, 5]


def test_a_label_is_one_array_and_back():
    answer = sequence([1, 2], [3])
    desirable, tokens = split_label(join_label(answer, desirable=False))
    assert desirable is False
    np.testing.assert_array_equal(tokens, answer)


def test_the_kind_of_rows_comes_from_their_columns():
    assert row_kind(["prompt", "chosen", "rejected"]) == "pair"
    assert row_kind(["prompt", "completion", "desirable"]) == "label"
    assert row_kind(["messages"]) == "sequence"


def test_the_last_answer_begins_after_the_last_prompt():
    two_turns = np.concatenate([sequence([1, 2], [3]), sequence([4], [5, 6])])
    assert answer_start(two_turns) == 4
    assert answer_start(sequence([1, 2], [])) == 2
    # A template may add tokens after the answer that are not learned.
    closed = np.concatenate([sequence([1], [2, 3]), np.array([~7], np.int32)])
    assert answer_start(closed) == 1
    np.testing.assert_array_equal(
        with_answer_of(sequence([1, 2], [3]), sequence([9], [5, 6])), sequence([1, 2], [5, 6])
    )


def test_advantages_add_up_to_nothing_and_equal_rewards_have_none():
    advantages = group_advantages(np.array([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]), scale=True)
    np.testing.assert_allclose(advantages.sum(1), 0, atol=1e-12)
    assert advantages[0, 1] > 0.8 and not advantages[1].any()


def test_token_weights_add_up_to_one():
    n_tokens = np.array([3, 0, 5])
    for mean_over in ("tokens", "answers"):
        spec = MethodSpec(kind="grpo", rewards=["exact_match"], mean_over=mean_over)
        total = (token_weights(n_tokens, spec) * n_tokens).sum()
        np.testing.assert_allclose(total, 1.0 if mean_over == "tokens" else 2 / 3)


def test_targets_of_sampled_answers_are_padded():
    targets = rollout_targets(np.array([1.0, -1.0]), np.array([0.5, 0.25]), [np.array([-1.0]), np.array([-2.0, -3.0])])
    np.testing.assert_array_equal(targets, [[1, 0.5, -1, 0, 0, 0], [-1, 0.25, -2, -3, 0, 0]])
    assert rollout_targets(np.zeros(2), np.ones(2)).shape == (2, 2)
