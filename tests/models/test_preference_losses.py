"""Each loss of preference training equals trl's for the same numbers, and so does its gradient."""

import os
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainer.preference.grpo import group_advantages, token_losses, token_weights
from trainer.preference.losses import PAIR_LOSSES, PairLogProbs, kto_kl, kto_loss
from trainer.spec.method import MethodSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trl():
    pytest.importorskip("trl", reason="trl is the oracle of these tests")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.kto_trainer import KTOTrainer

    return SimpleNamespace(cpo=CPOTrainer, orpo=ORPOTrainer, dpo=DPOTrainer, grpo=GRPOTrainer, kto=KTOTrainer)


def trainer(**settings):
    """Return what trl's loss methods read from a trainer."""
    same = lambda value, **_: value  # noqa: E731
    return SimpleNamespace(
        accelerator=SimpleNamespace(
            device="cpu", gather=same, gather_for_metrics=same, reduce=same, num_processes=1, sync_gradients=True
        ),
        model=SimpleNamespace(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        aux_loss_enabled=False,
        **settings,
    )


class Sequences:
    """Sequences with a prompt of two tokens, their answers' log-probabilities, and masks as trl has them."""

    def __init__(self, n, seed):
        rng = torch.Generator().manual_seed(seed)
        self.mask = torch.zeros(n, 7, dtype=torch.long)
        for row in range(n):
            self.mask[row, 2 : 4 + row % 4] = 1
        self.tokens = self.mask.sum(1)
        draw = lambda: -3 * torch.rand(n, 6, generator=rng, dtype=torch.float64) * self.mask[:, 1:]  # noqa: E731
        self.log_probs = draw().requires_grad_()
        self.reference = draw().sum(1)

    def model(self, log_probs=None):
        """Return a model as trl calls it: it gives the log-probabilities of the learned tokens."""
        values = (self.log_probs if log_probs is None else log_probs) * self.mask[:, 1:]
        zeros = torch.zeros_like(values)
        outputs = SimpleNamespace(log_probs=values, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
        return lambda **_: outputs


def pairs_of(sequences):
    sums = (sequences.log_probs * sequences.mask[:, 1:]).sum(1)
    (chosen, rejected), tokens = sums.chunk(2), sequences.tokens.double().chunk(2)
    return PairLogProbs(chosen, rejected, *tokens, *sequences.reference.chunk(2))


def assert_equal_with_gradient(ours, theirs, log_probs):
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, log_probs, retain_graph=True)
    (expected,) = torch.autograd.grad(theirs, log_probs, retain_graph=True)
    assert expected.abs().max() > 0
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("kind", "loss_type"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_dpo_and_ipo(trl, kind, loss_type):
    rows = Sequences(8, seed=1)
    spec = MethodSpec(kind=kind, beta=0.3)
    theirs = trl.dpo._compute_loss(
        trainer(
            beta=0.3, loss_types=[loss_type], loss_weights=[1.0], label_smoothing=0.0, ld_alpha=None, use_weighting=False,
            precompute_ref_logps=True, f_divergence_type="reverse_kl",
        ),
        rows.model(),
        {
            "input_ids": torch.ones_like(rows.mask),
            "attention_mask": torch.ones_like(rows.mask),
            "completion_mask": rows.mask,
            **dict(zip(("ref_chosen_logps", "ref_rejected_logps"), rows.reference.chunk(2), strict=True)),
        },
        False,
    )  # fmt: skip
    ours = PAIR_LOSSES[kind](pairs_of(rows), spec).mean()
    assert_equal_with_gradient(ours, theirs, rows.log_probs)


@pytest.mark.parametrize(("kind", "beta"), [("simpo", 2.0), ("dpo", 0.2)])
def test_label_smoothing_and_simpo(trl, kind, beta):
    rows = Sequences(8, seed=2)
    pairs = pairs_of(rows)
    settings = {"kind": kind, "beta": beta, "label_smoothing": 0.1}
    if kind == "simpo":
        spec = MethodSpec(**settings, margin=0.6)
        given = pairs.mean_chosen, pairs.mean_rejected
    else:
        spec = MethodSpec(**settings)
        given = pairs.chosen - pairs.reference_chosen, pairs.rejected - pairs.reference_rejected
    loss_type = "simpo" if kind == "simpo" else "sigmoid"
    stand_in = trainer(beta=beta, alpha=0.0, simpo_gamma=0.6, label_smoothing=0.1, loss_type=loss_type)
    theirs = trl.cpo.cpo_loss(stand_in, *given)[0].mean()
    assert_equal_with_gradient(PAIR_LOSSES[kind](pairs, spec).mean(), theirs, rows.log_probs)


def test_orpo(trl):
    rows = Sequences(8, seed=3)
    pairs = pairs_of(rows)
    ratio = trl.orpo.odds_ratio_loss(trainer(beta=0.25), pairs.mean_chosen, pairs.mean_rejected)[0]
    theirs = (
        -pairs.mean_chosen - ratio
    ).mean()  # trl's likelihood term is a mean over a batch's tokens, ours over rows
    ours = PAIR_LOSSES["orpo"](pairs, MethodSpec(kind="orpo", beta=0.25)).mean()
    # trl computes the odds in float32.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(loss, rows.log_probs, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_kto(trl):
    rows, mismatched = Sequences(8, seed=4), Sequences(8, seed=5)
    desirable = torch.tensor([True, True, False, True, False, False, True, True])
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.5}
    stand_in = trainer(beta=0.3, loss_type="kto", precompute_ref_logps=True, calculate_KL=True, **weights)
    kl_log_probs = (mismatched.log_probs * mismatched.mask[:, 1:]).sum(1).detach()
    stand_in._compute_kl_logps = lambda model, batch: kl_log_probs
    theirs = trl.kto._compute_loss(
        stand_in,
        rows.model(),
        {
            "input_ids": torch.ones_like(rows.mask),
            "attention_mask": torch.ones_like(rows.mask),
            "completion_mask": rows.mask,
            "label": desirable,
            "ref_logps": rows.reference,
            "ref_KL_logps": mismatched.reference - 2.0,
        },
        False,
    )
    kl = kto_kl(kl_log_probs - mismatched.reference + 2.0)
    assert kl > 0
    log_ratios = (rows.log_probs * rows.mask[:, 1:]).sum(1) - rows.reference
    spec = MethodSpec(kind="kto", beta=0.3, **weights)
    assert_equal_with_gradient(kto_loss(log_ratios, desirable, kl, spec).mean(), theirs, rows.log_probs)


@pytest.mark.parametrize(("mean_over", "loss_type"), [("tokens", "dapo"), ("answers", "grpo")])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_grpo(trl, mean_over, loss_type, beta):
    rows, old, reference = (Sequences(8, seed=seed) for seed in (6, 7, 8))
    mask = rows.mask[:, 1:]
    old_log_probs = rows.log_probs.detach() + 0.2 * old.log_probs.detach() + 0.2 * mask
    rewards = np.array([[0.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5, 1.0]])
    advantages = group_advantages(rewards, scale=True)
    centred = torch.tensor(rewards) - torch.tensor(rewards).mean(1, keepdim=True)
    std = torch.tensor(rewards).std(1, keepdim=True)
    np.testing.assert_allclose(advantages, (centred / (std + 1e-4)).numpy())
    stand_in = trainer(
        beta=beta, loss_type=loss_type, importance_sampling_level="token", epsilon_low=0.2, epsilon_high=0.28,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1, args=SimpleNamespace(
            delta=None, use_bias_correction_kl=False, steps_per_generation=1
        ),
    )  # fmt: skip
    stand_in._get_per_token_logps_and_entropies = lambda *_, **__: (rows.log_probs, torch.zeros_like(mask), None)
    theirs = trl.grpo._compute_loss(
        stand_in,
        None,
        {
            "prompt_ids": mask[:, :0],
            "prompt_mask": mask[:, :0],
            "completion_ids": mask,
            "completion_mask": mask,
            "advantages": torch.tensor(advantages).flatten(),
            "old_per_token_logps": old_log_probs,
            "ref_per_token_logps": reference.log_probs.detach(),
            "num_items_in_batch": mask.sum(),
        },
    )
    spec = MethodSpec(kind="grpo", rewards=["exact_match"], beta=beta, clip=0.2, clip_high=0.28, mean_over=mean_over)
    learned = mask.bool()
    per_answer = torch.tensor(advantages).flatten()[:, None].expand(mask.shape)
    losses = token_losses(
        rows.log_probs[learned],
        old_log_probs[learned],
        per_answer[learned],
        spec,
        reference.log_probs.detach()[learned] if beta else None,
    )
    weights = torch.tensor(token_weights(mask.sum(1).numpy(), spec))[:, None].expand(mask.shape)[learned]
    assert_equal_with_gradient((losses * weights).sum(), theirs, rows.log_probs)
