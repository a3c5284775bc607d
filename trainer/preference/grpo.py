"""Group relative policy optimization: advantages of answers, and the loss of their tokens.

Letters in shapes: G prompts, S answers to each, B = G * S answers, T learned tokens of all answers side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainer.spec.method import MethodSpec

if TYPE_CHECKING:
    import torch

# Added to the standard deviation, so that rewards that hardly differ do not give large advantages.
_MIN_STD = 1e-4


def group_advantages(rewards: np.ndarray, *, scale: bool) -> np.ndarray:
    """Return the advantage of each answer over its prompt's other answers, float64, for rewards (G, S).

    It is the reward minus the group's mean (Shao et al. 2024); with `scale`, divided by the group's standard deviation.
    """
    advantages_GS = rewards - rewards.mean(axis=1, keepdims=True)
    if scale:
        advantages_GS = advantages_GS / (rewards.std(axis=1, ddof=1, keepdims=True) + _MIN_STD)
    return advantages_GS


def token_weights(n_tokens: np.ndarray, spec: MethodSpec) -> np.ndarray:
    """Return the weight of one token of each answer in the loss of a step, for its answers' tokens (B,); float64.

    The weights of all tokens of the step add up to 1. An answer without tokens has none.
    """
    n_tokens_B = n_tokens.astype(np.float64)
    if spec.mean_over == "tokens":
        return np.full(len(n_tokens), 1.0 / max(1.0, n_tokens_B.sum()))
    return 1.0 / np.maximum(1.0, n_tokens_B) / max(1, len(n_tokens))


def token_losses(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    spec: MethodSpec,
    reference_log_probs: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the clipped loss of each token, shape (T,); all arguments have that shape.

    `old_log_probs` are those under the model that sampled the answers; `advantages` those of the tokens' answers. With
    `reference_log_probs`, `beta` times an unbiased estimate of the KL divergence from the reference is added (Schulman
    2020, "k3").
    """
    import torch

    ratio_T = torch.exp(log_probs - old_log_probs)
    high = spec.clip if spec.clip_high is None else spec.clip_high
    clipped_T = ratio_T.clamp(1 - spec.clip, 1 + high)
    losses_T = -torch.minimum(ratio_T * advantages, clipped_T * advantages)
    if reference_log_probs is not None:
        gap_T = reference_log_probs - log_probs
        losses_T = losses_T + spec.strength * (torch.exp(gap_T) - gap_T - 1)
    return losses_T
