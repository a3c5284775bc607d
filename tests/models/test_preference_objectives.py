"""Objectives over packed pairs and answers equal the losses computed one sequence at a time with transformers' own forward."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.tiny_causal import write_tiny_causal
from trainer.chat.tokens import join_mask, learned_mask, token_ids
from trainer.models.causal.batch import pack_rows
from trainer.models.causal.packed_forward import use_packed_forward
from trainer.preference.grpo import token_losses
from trainer.preference.losses import PAIR_LOSSES, PairLogProbs, kto_loss
from trainer.preference.objectives import LabelObjective, PairObjective, RolloutObjective, rollout_targets
from trainer.preference.rows import join_pair, sequences_of
from trainer.spec.method import MethodSpec

pytestmark = pytest.mark.slow

SEQUENCES = [(4, 3), (4, 6), (2, 5), (2, 1), (7, 2), (7, 9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_causal(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(3)
    learned = [np.arange(sum(sizes)) >= sizes[0] for sizes in SEQUENCES]
    return [join_mask(rng.integers(3, 400, len(mask)), mask) for mask in learned]


def answer_log_probs(model, sequence):
    """Return the log-probability of each learned token, with the model's own attention."""
    ids = torch.from_numpy(token_ids(sequence).astype(np.int64))
    log_probs = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
    return log_probs[torch.from_numpy(learned_mask(sequence)[1:])]


def assert_equal_losses(folder, objective, sequences, targets, expected_of):
    packed = use_packed_forward(AutoModelForCausalLM.from_pretrained(folder))
    plain = AutoModelForCausalLM.from_pretrained(folder)
    loss = objective.loss_sum(packed, pack_rows(sequences), None if targets is None else torch.tensor(targets))
    expected = expected_of([answer_log_probs(plain, sequence) for sequence in sequences])
    torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    for ours, theirs in zip(packed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5 * float(theirs.grad.abs().max()))


@pytest.mark.parametrize("kind", ["dpo", "ipo", "orpo", "simpo"])
def test_pairs(folder, sequences, kind):
    spec = MethodSpec(kind=kind)
    reference = np.array([[-20.0, -35.0], [-30.0, -7.0], [-11.0, -60.0]])
    rows = [join_pair(*sequences[index : index + 2]) for index in (0, 2, 4)]

    def expected_of(log_probs):
        sums = torch.stack([values.sum() for values in log_probs]).double().view(-1, 2)
        counts = torch.tensor([len(values) for values in log_probs], dtype=torch.float64).view(-1, 2)
        return PAIR_LOSSES[kind](PairLogProbs(*sums.T, *counts.T, *torch.tensor(reference).T), spec).sum()

    targets = reference if kind in ("dpo", "ipo") else np.zeros(3, np.int8)
    assert_equal_losses(folder, PairObjective(spec), sequences_of("pair", rows), targets, expected_of)


def test_labels(folder, sequences):
    spec = MethodSpec(kind="kto", undesirable_weight=1.3)
    desirable, reference, kl = np.array([1, 0, 1, 1, 0, 0]), np.full(6, -25.0), 1.5
    targets = np.stack([desirable, reference, np.full(6, kl)], axis=1)

    def expected_of(log_probs):
        ratios = torch.stack([values.sum() for values in log_probs]).double() + 25
        return kto_loss(ratios, torch.tensor(desirable == 1), torch.tensor(kl), spec).sum()

    assert_equal_losses(folder, LabelObjective(spec), sequences, targets, expected_of)


@pytest.mark.parametrize(("beta", "is_new"), [(0.0, True), (0.2, True), (0.2, False)])
def test_sampled_answers(folder, sequences, beta, is_new):
    spec = MethodSpec(kind="grpo", rewards=["exact_match"], beta=beta)
    rng = np.random.default_rng(5)
    advantages, weights = rng.normal(size=6), rng.random(6)
    old, reference = ([-6 - rng.random(length) for _, length in SEQUENCES] for _ in range(2))
    has_blocks = beta > 0 or not is_new

    def expected_of(log_probs):
        total = torch.zeros((), dtype=torch.float64)
        for row, values in enumerate(log_probs):
            before = torch.tensor(old[row]).float() if has_blocks else values.detach()
            base = torch.tensor(reference[row]).float() if beta else None
            total = (
                total + (token_losses(values, before, torch.tensor(advantages[row]), spec, base) * weights[row]).sum()
            )
        return total

    targets = rollout_targets(advantages, weights, *((old, reference) if has_blocks else ()))
    assert_equal_losses(folder, RolloutObjective(spec), sequences, targets, expected_of)
