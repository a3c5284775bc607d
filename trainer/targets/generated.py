"""Target: the tokens of an answer. A row's scores are its sufficient statistics, so no logits are held.

Letters in shapes: B rows. The columns of scores are the negative log-likelihood in nats summed over the judged tokens,
the number of these tokens, and how many of them were predicted right; then the first two for the rejected answer of a pair,
or for an answer that is not desirable (0 in other rows). Then the statistics of written answers (`trainer.targets.answers`),
if any were written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa

from trainer.spec.answers import AnswerMetricName
from trainer.spec.evaluate import Metric
from trainer.targets.answers.catalog import answer_metrics
from trainer.targets.base import FittedTarget, Target
from trainer.targets.metrics.preference import preference_metrics

if TYPE_CHECKING:
    import torch

    from trainer.spec.train import LossSpec

#: The columns of scores.
NLL, TOKENS, RIGHT, REJECTED_NLL, REJECTED_TOKENS = range(5)
N_STATISTICS = 5
_LARGEST_EXPONENT = 700.0


class GeneratedTokens(Target):
    """Tokens, each predicted from those before it. What is learned is in the model's inputs; there is no column."""

    kind = "tokens"
    metric_names: tuple[Metric, ...] = (
        "log_loss",
        "perplexity",
        "token_accuracy",
        "preference_accuracy",
        "preference_margin",
        "reward",
    )
    held_out_metric_names: tuple[Metric, ...] = get_args(AnswerMetricName)
    default_metric: Metric = "log_loss"
    loss_metric = "log_loss"
    has_labels = False
    may_be_empty = True
    accepts_any_type = True

    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        return []

    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        return {"count": len(values)}

    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        return {}

    def encode(self, fitted: FittedTarget, values: pa.Array) -> pa.Array:
        return pa.array(np.zeros(len(values), np.int8))

    def array(self, fitted: FittedTarget, encoded: pa.ChunkedArray) -> np.ndarray:
        return np.zeros(len(encoded), np.int8)

    def tensor(self, fitted: FittedTarget, targets: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(targets)

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        spec: LossSpec | None = None,
    ) -> torch.Tensor:
        raise NotImplementedError("the loss of tokens is the one of the task's objective")

    def width(self, fitted: FittedTarget) -> int:
        return N_STATISTICS

    def scores(self, fitted: FittedTarget, logits: np.ndarray) -> np.ndarray:
        scores: np.ndarray = logits.astype(np.float64)
        return scores

    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        others = preference_metrics(*scores[:, [NLL, TOKENS, REJECTED_NLL, REJECTED_TOKENS]].T)
        if scores.shape[1] > N_STATISTICS:
            others |= answer_metrics(scores[:, N_STATISTICS:])
        n_tokens = float(scores[:, TOKENS].sum())
        if not n_tokens:
            return others
        loss = float(scores[:, NLL].sum()) / n_tokens
        return {
            **others,
            "log_loss": loss,
            "perplexity": math.exp(min(loss, _LARGEST_EXPONENT)),
            "token_accuracy": float(scores[:, RIGHT].sum()) / n_tokens,
        }

    def stable_scores(self, scores: np.ndarray) -> np.ndarray:
        # Means, because rounding adds up over the tokens; and no counts of right tokens, which jump at a tie.
        counts = scores[:, [TOKENS, REJECTED_TOKENS]]
        return np.hstack([scores[:, [NLL, REJECTED_NLL]] / np.maximum(counts, 1), counts])

    def answer(self, fitted: FittedTarget, scores: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"log_loss": round(nll / max(1.0, n_tokens), 6), "tokens": int(n_tokens)}
            for nll, n_tokens in scores[:, [NLL, TOKENS]].tolist()
        ]

    def prediction_columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        return {
            "prediction": pa.array([answer.get("text") for answer in answers], pa.string()),
            "score": pa.array([answer.get("mean_logprob") for answer in answers], pa.float64()),
        }

    def example(self, fitted: FittedTarget) -> dict[str, Any]:
        return {"log_loss": 1.234567, "tokens": 12}
