"""How often a model prefers the better answer: metrics of pairs, and of single answers with labels.

They need no reference, so any two models can be compared on the same rows. An answer's probability is taken per token:
otherwise the shorter answer would win nearly always. Letters in shapes: B rows.
"""

from __future__ import annotations

import numpy as np


def preference_metrics(
    nll: np.ndarray, tokens: np.ndarray, rejected_nll: np.ndarray, rejected_tokens: np.ndarray
) -> dict[str, float]:
    """Return `preference_accuracy` and `preference_margin`; {} if there is nothing to compare. All arrays are (B,).

    A row with tokens on both sides is a pair: the accuracy is the share of pairs whose chosen answer is more probable per
    token than the rejected one (equal counts half), and the margin the mean difference in nats per token. If every row has
    one side only, each desirable answer is compared with each undesirable one, which is the area under the ROC curve.
    """
    is_chosen, is_rejected = tokens > 0, rejected_tokens > 0
    is_pair = is_chosen & is_rejected
    if is_pair.any():
        margins = rejected_nll[is_pair] / rejected_tokens[is_pair] - nll[is_pair] / tokens[is_pair]
        accuracy = float(np.mean((margins > 0) + 0.5 * (margins == 0)))
        return {"preference_accuracy": accuracy, "preference_margin": float(margins.mean())}
    if not (is_chosen.any() and is_rejected.any()):
        return {}
    desirable = -nll[is_chosen] / tokens[is_chosen]
    undesirable = np.sort(-rejected_nll[is_rejected] / rejected_tokens[is_rejected])
    below = np.searchsorted(undesirable, desirable, side="left")
    up_to = np.searchsorted(undesirable, desirable, side="right")
    return {
        "preference_accuracy": float((below + up_to).sum() / 2 / (len(desirable) * len(undesirable))),
        "preference_margin": float(desirable.mean() - undesirable.mean()),
    }
