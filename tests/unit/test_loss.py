"""Losses: against their formulas, and refused for targets that they do not fit."""

import numpy as np
import pytest
import torch

from cluster.errors import SpecError
from trainer.spec.train import LossSpec
from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers
from trainer.targets.tags import Tags
from trainer.tasks.load_spec import check_loss
from trainer.training.loss import make_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 0.0]])
TARGETS = torch.tensor([0, 2, 0])


def test_focal_loss_of_classes():
    probabilities = LOGITS.softmax(-1)[torch.arange(3), TARGETS]
    expected = ((1 - probabilities) ** 2 * -probabilities.log()).sum()
    assert float(make_loss(LossSpec(kind="focal"), Classes())(LOGITS, TARGETS, None)) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_focal_loss_with_gamma_0_is_cross_entropy_also_with_weights_and_shares():
    weights = torch.tensor([0.5, 1.0, 2.0])
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    plain, focal = make_loss(LossSpec(), Classes()), make_loss(LossSpec(kind="focal", gamma=0.0), Classes())
    for targets in (TARGETS, shares):
        assert float(focal(LOGITS, targets, weights)) == pytest.approx(float(plain(LOGITS, targets, weights)), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_a_row_that_is_quite_right_has_a_gradient(gamma):
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    make_loss(LossSpec(kind="focal", gamma=gamma), Classes())(logits, torch.tensor([0]), None).backward()
    assert torch.isfinite(logits.grad).all()


def test_label_smoothing_is_that_of_torch():
    expected = torch.nn.functional.cross_entropy(LOGITS, TARGETS, label_smoothing=0.1, reduction="sum")
    assert float(make_loss(LossSpec(label_smoothing=0.1), Classes())(LOGITS, TARGETS, None)) == pytest.approx(
        float(expected)
    )


def test_focal_loss_of_tags():
    truth = torch.tensor([[1.0, 0.0, 1.0]] * 3)
    right = torch.where(truth > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    expected = ((1 - right) ** 1.5 * -right.log()).mean(1).sum()
    loss = make_loss(LossSpec(kind="focal", gamma=1.5), Tags())(LOGITS, truth, None)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_options_that_a_target_does_not_support_are_errors():
    with pytest.raises(SpecError, match="focal is for classes and tags; the target here is a number"):
        check_loss(LossSpec(kind="focal"), Numbers())
    with pytest.raises(SpecError, match="label_smoothing is for classes; the kind of target here is tags"):
        check_loss(LossSpec(label_smoothing=0.1), Tags())
    with pytest.raises(SpecError, match="there is no module 'nowhere'"):
        check_loss(LossSpec(function="nowhere:loss"), Classes())


def test_a_users_own_loss(tmp_path, monkeypatch):
    (tmp_path / "my_losses_of_test.py").write_text(
        "def half(logits, targets, weights):\n    return 0.5 * (logits.sum() - targets.sum())\n"
        "def rows(logits, targets, weights):\n    return logits.sum(1)\n"
    )
    monkeypatch.chdir(tmp_path)
    loss = make_loss(LossSpec(function="my_losses_of_test:half"), Classes())(LOGITS, TARGETS, None)
    assert float(loss) == pytest.approx(0.5 * float(LOGITS.sum() - 2))
    with pytest.raises(SpecError, match=r"returned \(3,\), not one number"):
        make_loss(LossSpec(function="my_losses_of_test:rows"), Classes())(LOGITS, TARGETS, None)


def test_losses_by_row_add_up():
    loss = make_loss(LossSpec(kind="focal", label_smoothing=0.2), Classes())
    parts = [float(loss(LOGITS[row : row + 1], TARGETS[row : row + 1], None)) for row in range(3)]
    assert np.sum(parts) == pytest.approx(float(loss(LOGITS, TARGETS, None)), rel=1e-6)
