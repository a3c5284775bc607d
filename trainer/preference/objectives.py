"""What preference training and GRPO minimize, as objectives of the training loop (`trainer.tasks.objective`).

What a row needs besides its tokens travels as its target: log-probabilities under the reference, advantages. Letters in
shapes: B rows, S sequences, T learned tokens of a batch, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.preference.grpo import token_losses
from trainer.preference.losses import PAIR_LOSSES, PairLogProbs, kto_loss
from trainer.spec.method import REFERENCE_METHODS, MethodSpec

if TYPE_CHECKING:
    import torch


class PairObjective:
    """A loss of pairs of answers, by pair. Implements `Objective`.

    The targets of methods with a reference are the log-probabilities of the chosen and the rejected answer under it, float,
    shape (P, 2). Those of other methods are not read.
    """

    def __init__(self, spec: MethodSpec) -> None:
        self._spec = spec

    def weight(self, inputs: np.ndarray) -> int:
        return 1

    def loss_sum(
        self, forward: Callable[..., Any], batch: Mapping[str, Any], targets: torch.Tensor | None
    ) -> torch.Tensor:
        sums_S, counts_S = sequence_log_probs(forward(**batch).nll, batch)
        pairs = join_pairs(sums_S, counts_S, targets if self._spec.kind in REFERENCE_METHODS else None)
        return PAIR_LOSSES[self._spec.kind](pairs, self._spec).sum()


class LabelObjective:
    """The loss of answers that are desirable or not (KTO), by answer. Implements `Objective`.

    The targets are float, shape (B, 3): 1 for a desirable answer or 0, its log-probability under the reference, and the
    estimate of the KL divergence of the whole step.
    """

    def __init__(self, spec: MethodSpec) -> None:
        self._spec = spec

    def weight(self, inputs: np.ndarray) -> int:
        return 1

    def loss_sum(self, forward: Callable[..., Any], batch: Mapping[str, Any], targets: torch.Tensor) -> torch.Tensor:
        sums_B, _ = sequence_log_probs(forward(**batch).nll, batch)
        desirable_B, reference_B, kl_B = targets.unbind(1)
        return kto_loss(sums_B - reference_B, desirable_B > 0, kl_B, self._spec).sum()


class RolloutObjective:
    """The loss of sampled answers (GRPO). Implements `Objective`.

    The targets are those of `rollout_targets`.
    """

    def __init__(self, spec: MethodSpec) -> None:
        self._spec = spec

    def weight(self, inputs: np.ndarray) -> int:
        return 1

    def loss_sum(self, forward: Callable[..., Any], batch: Mapping[str, Any], targets: torch.Tensor) -> torch.Tensor:
        import torch

        log_probs_T = -forward(**batch).nll
        n_tokens = torch.tensor(_tokens_by_sequence(batch), device=targets.device)
        advantages_T, weights_T = targets[:, :2].T.float().repeat_interleave(n_tokens, dim=1)
        blocks = targets[:, 2:].float().unflatten(1, (2, -1))
        is_used = torch.arange(blocks.shape[2], device=targets.device) < n_tokens[:, None]
        old_T = blocks[:, 0][is_used] if blocks.shape[2] else log_probs_T.detach()
        reference_T = blocks[:, 1][is_used] if blocks.shape[2] and self._spec.strength else None
        losses_T = token_losses(log_probs_T, old_T, advantages_T, self._spec, reference_T)
        return (losses_T * weights_T).sum()


def rollout_targets(
    advantages: np.ndarray,
    weights: np.ndarray,
    old_log_probs: list[np.ndarray] | None = None,
    reference_log_probs: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Return the targets of sampled answers, float64, shape (B, 2 + 2 L) with L tokens of the longest answer.

    The columns are an answer's advantage, the weight of each of its tokens, and two blocks of L columns, padded with
    zeros: the tokens' log-probabilities under the model that sampled them, and under the reference. Without
    `old_log_probs`, the blocks are empty: the answers come from the model as it is. Blocks that are not given are zeros.
    """
    columns = np.stack([advantages, weights], axis=1)
    if old_log_probs is None:
        return columns
    longest = max(1, *map(len, old_log_probs))
    blocks = np.zeros((2, len(columns), longest))
    for block, values in zip(blocks, (old_log_probs, reference_log_probs or []), strict=True):
        for row, log_probs in enumerate(values):
            block[row, : len(log_probs)] = log_probs
    return np.concatenate([columns, *blocks], axis=1)


def sequence_log_probs(nll: torch.Tensor, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed log-probability of each sequence's learned tokens, and their number; float64, shape (S,) each.

    `nll` (T,) are the losses of a batch of `trainer.models.causal.batch.pack_rows`. Differences of such sums are small
    beside the sums, hence float64.
    """
    import torch

    counts = _tokens_by_sequence(batch)
    sums = torch.stack([part.sum() for part in nll.double().split(counts)])
    return -sums, torch.tensor(counts, dtype=torch.float64, device=nll.device)


def join_pairs(sums: torch.Tensor, counts: torch.Tensor, reference: torch.Tensor | None) -> PairLogProbs:
    """Return pairs from the sequences of `sequence_log_probs`, shape (2 P,), and from a reference (P, 2) if there is one."""
    import torch

    (chosen, rejected), (chosen_tokens, rejected_tokens) = sums.view(-1, 2).T, counts.clamp(min=1).view(-1, 2).T
    references = reference.to(sums.dtype).unbind(1) if reference is not None else [torch.zeros_like(chosen)] * 2
    return PairLogProbs(chosen, rejected, chosen_tokens, rejected_tokens, *references)


def _tokens_by_sequence(batch: Mapping[str, Any]) -> list[int]:
    """Return how many learned tokens each sequence of a batch has."""
    from trainer.models.causal.batch import row_numbers

    counts: list[int] = np.bincount(row_numbers(dict(batch)), minlength=len(batch["segments"].lengths)).tolist()
    return counts
