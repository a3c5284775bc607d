"""The `evaluate:` and `promote:` sections of a spec: how models are compared, and when the champion changes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.answers import AnswersSpec
from trainer.spec.section import NAME_PATTERN, Positive, SpecSection

#: Metrics for which a lower value is better; for all others a higher one is.
LOWER_IS_BETTER = frozenset({"log_loss", "perplexity", "calibration_error", "rmse", "mae", "mse"})

#: Raised when a metric changes its meaning; values of different versions are not compared. 2: macro averages cover the
#: classes or tags that have rows, and no longer those without rows that were predicted.
METRICS_VERSION = 2

#: Metrics that evaluation computes and that may choose the best checkpoint, trial or version. trainer/targets/metrics
#: computes them; each target lists its own in `metric_names`.
Metric = Literal[
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "macro_precision",
    "macro_recall",
    "exact_match",
    "roc_auc",
    "pr_auc",
    "log_loss",
    "perplexity",
    "token_accuracy",
    "preference_accuracy",
    "preference_margin",
    "reward",
    "bleu",
    "chrf",
    "rouge_l",
    "json_valid",
    "answer_score",
    "pass_at_k",
    "calibration_error",
    "rmse",
    "mae",
    "mse",
    "r2",
    "pearson",
    "spearman",
]


class EvaluateSpec(SpecSection):
    """How models are compared."""

    metric: Literal["auto", Metric] = "auto"
    """The metric that chooses the best checkpoint, the best trial and the champion. `auto`: the default of the task:
    macro_f1 for classes, rmse for numbers, micro_f1 for tags."""
    batch_size: Positive = 64
    """Rows per forward pass outside of training."""
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15
    """Number of bins of the expected calibration error."""
    max_mistakes_shown: Annotated[int, Field(ge=0, le=1000)] = 30
    """How many of the most confident mistakes the report shows."""

    answers: AnswersSpec | None = None
    """Language models: write answers to the held-out prompts, and compare them with the rows' own. Default: none are
    written; the model is judged by how probable it holds the rows' own answers."""

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether a lower or a higher `metric` is better."""
        return "min" if self.metric in LOWER_IS_BETTER else "max"


class PromoteSpec(SpecSection):
    """The gate: when the alias moves to a new version."""

    enabled: bool = True
    """Without it, a run registers its model and moves no alias."""
    alias: Annotated[str, Field(pattern=NAME_PATTERN)] = "champion"
    """The alias that moves."""
    metric: Literal["auto", Metric] = "auto"
    """The metric that decides. `auto`: `evaluate.metric`. Language models: also a metric of `evaluate.answers`."""
    min_improvement: Annotated[float, Field(ge=0.0)] = 0.0
    """How much better the metric must be than the current champion's on the same held-out rows."""
    min_value: float | None = None
    """The worst value of the metric that may be promoted. Default: any."""
