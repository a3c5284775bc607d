"""The losses of preference training, as functions of the log-probabilities of whole answers.

A log-probability of an answer is the sum over its learned tokens; means per token are named so. Letters in shapes:
P pairs, B answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from trainer.spec.method import MethodSpec

if TYPE_CHECKING:
    import torch


class PairLogProbs(NamedTuple):
    """The answers of P pairs under the model and under the reference. All fields are float tensors, shape (P,)."""

    chosen: torch.Tensor
    """Log-probability of the chosen answer."""
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    """Number of learned tokens of the chosen answer, at least 1."""
    rejected_tokens: torch.Tensor
    reference_chosen: torch.Tensor
    """Log-probability of the chosen answer under the reference; not read by methods without a reference."""
    reference_rejected: torch.Tensor

    @property
    def mean_chosen(self) -> torch.Tensor:
        """Log-probability per token of the chosen answer."""
        return self.chosen / self.chosen_tokens

    @property
    def mean_rejected(self) -> torch.Tensor:
        """Log-probability per token of the rejected answer."""
        return self.rejected / self.rejected_tokens


def dpo_loss(pairs: PairLogProbs, spec: MethodSpec) -> torch.Tensor:
    """Return the loss of direct preference optimization (Rafailov et al. 2023, equation 7), shape (P,).

    `label_smoothing` makes it conservative DPO (Mitchell 2023): that share of the pairs may be swapped.
    """
    margins_P = dpo_margins(pairs, spec)
    return _smoothed_log_loss(margins_P, spec.label_smoothing)


def ipo_loss(pairs: PairLogProbs, spec: MethodSpec) -> torch.Tensor:
    """Return the loss of identity preference optimization (Azar et al. 2023, equation 17), shape (P,).

    Log-ratios are means per token, as its authors use them: otherwise the target would depend on an answer's length.
    """
    chosen_P = (pairs.chosen - pairs.reference_chosen) / pairs.chosen_tokens
    rejected_P = (pairs.rejected - pairs.reference_rejected) / pairs.rejected_tokens
    return (chosen_P - rejected_P - 1 / (2 * spec.strength)) ** 2


def orpo_loss(pairs: PairLogProbs, spec: MethodSpec) -> torch.Tensor:
    """Return the loss of odds ratio preference optimization (Hong et al. 2024, equations 6 and 7), shape (P,).

    It is the chosen answer's loss per token plus `beta` times the log loss of the odds ratio.
    """
    import torch

    chosen_P, rejected_P = pairs.mean_chosen, pairs.mean_rejected
    log_odds_P = (chosen_P - rejected_P) - (_log_of_rest(chosen_P) - _log_of_rest(rejected_P))
    return -chosen_P - spec.strength * torch.nn.functional.logsigmoid(log_odds_P)


def simpo_loss(pairs: PairLogProbs, spec: MethodSpec) -> torch.Tensor:
    """Return the loss of simple preference optimization (Meng et al. 2024, equation 6), shape (P,)."""
    margins_P = spec.strength * (pairs.mean_chosen - pairs.mean_rejected)
    return _smoothed_log_loss(margins_P - spec.margin, spec.label_smoothing)


def kto_loss(log_ratios: torch.Tensor, desirable: torch.Tensor, kl: torch.Tensor, spec: MethodSpec) -> torch.Tensor:
    """Return the loss of Kahneman-Tversky optimization (Ethayarajh et al. 2024, equations 7 and 8), shape (B,).

    `log_ratios` (B,) are the answers' log-probabilities minus those under the reference; `desirable` (B,) is bool; `kl`
    is one number without gradient, as `kto_kl` returns it.
    """
    import torch

    sign_B = desirable.to(log_ratios.dtype) * 2 - 1
    weight_B = torch.where(desirable, spec.desirable_weight, spec.undesirable_weight).to(log_ratios.dtype)
    return weight_B * (1 - torch.sigmoid(spec.strength * sign_B * (log_ratios - kl)))


def kto_kl(mismatched_log_ratios: torch.Tensor) -> torch.Tensor:
    """Return the estimate of the KL divergence from the reference, from answers to other prompts; at least 0."""
    return mismatched_log_ratios.detach().mean().clamp(min=0)


def dpo_margins(pairs: PairLogProbs, spec: MethodSpec) -> torch.Tensor:
    """Return by how much the implicit reward of the chosen answer is larger than that of the rejected one, shape (P,)."""
    chosen_P = pairs.chosen - pairs.reference_chosen
    rejected_P = pairs.rejected - pairs.reference_rejected
    return spec.strength * (chosen_P - rejected_P)


#: Method -> its loss of pairs.
PAIR_LOSSES: dict[str, Callable[[PairLogProbs, MethodSpec], torch.Tensor]] = {
    "dpo": dpo_loss,
    "ipo": ipo_loss,
    "orpo": orpo_loss,
    "simpo": simpo_loss,
}


def _smoothed_log_loss(margins: torch.Tensor, smoothing: float) -> torch.Tensor:
    import torch

    log_sigmoid = torch.nn.functional.logsigmoid
    return -(1 - smoothing) * log_sigmoid(margins) - smoothing * log_sigmoid(-margins)


def _log_of_rest(log_p: torch.Tensor) -> torch.Tensor:
    """Return log(1 - exp(`log_p`)) without loss of digits on either side of -log 2."""
    import torch

    log_p = log_p.clamp(max=-1e-7)  # a probability of exactly 1 leaves nothing, whose logarithm has no gradient
    is_large = log_p > -math.log(2)
    # Both branches get arguments that are safe for them: a NaN in the branch not taken would reach the gradient.
    large = torch.log(-torch.expm1(torch.where(is_large, log_p, -1.0)))
    small = torch.log1p(-torch.exp(torch.where(is_large, -1.0, log_p)))
    return torch.where(is_large, large, small)
