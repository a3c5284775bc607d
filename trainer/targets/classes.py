"""Target: one class out of those in the training rows. Letters in shapes: B rows, C classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.text import blank_mask
from trainer.spec.evaluate import Metric
from trainer.targets.arrays import missed_probability, reason_where
from trainer.targets.base import FittedTarget, Target
from trainer.targets.label_sets import check_not_numbers, known_labels
from trainer.targets.metrics.classification import classification_metrics
from trainer.values.columns import canonical_words

if TYPE_CHECKING:
    import torch

    from trainer.spec.train import LossSpec

# A column with more distinct values in one block is an id or a text, not a class; the driver must not collect them.
_MAX_BLOCK_VALUES = 12_000


class Classes(Target):
    """Exactly one of a set of labels. `fitted["labels"]` are the sorted labels."""

    kind = "class"
    metric_names: tuple[Metric, ...] = (
        "accuracy",
        "macro_f1",
        "weighted_f1",
        "macro_precision",
        "macro_recall",
        "roc_auc",
        "pr_auc",
        "log_loss",
        "calibration_error",
    )
    default_metric: Metric = "macro_f1"
    loss_metric = "log_loss"
    has_classes = True
    loss_options: frozenset[Literal["focal", "label_smoothing"]] = frozenset({"focal", "label_smoothing"})

    def canonicalize(self, fitted: FittedTarget, values: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array([canonical_words(values)])

    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        return [reason_where(blank_mask(values), f"no visible character in {role}")]

    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        return dict(Counter(values.to_pylist()).most_common(_MAX_BLOCK_VALUES))

    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        labels = known_labels(role, tally, declared)
        if declared is None:
            check_not_numbers(role, labels)
        if len(labels) < 2:
            raise DataError(
                f"training needs at least 2 classes; classes in the training rows: {', '.join(labels) or 'none'}",
                f"check `data.columns.{role}`, or add rows of another class",
            )
        return {"labels": labels}

    def encode(self, fitted: FittedTarget, values: pa.Array) -> pa.Array:
        return pc.index_in(values, value_set=pa.array(fitted["labels"], pa.string()))

    def array(self, fitted: FittedTarget, encoded: pa.Array | pa.ChunkedArray) -> np.ndarray:
        filled = pc.fill_null(encoded, -1)
        joined = filled.combine_chunks() if isinstance(filled, pa.ChunkedArray) else filled
        ids_B: np.ndarray = joined.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        return ids_B

    def codes(self, fitted: FittedTarget, values: pa.Array) -> np.ndarray:
        return self.array(fitted, self.encode(fitted, values))

    def tensor(self, fitted: FittedTarget, targets: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.training_values(fitted, targets))

    def training_values(self, fitted: FittedTarget, targets: np.ndarray) -> np.ndarray:
        return targets.astype(np.int64)

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        spec: LossSpec | None = None,
    ) -> torch.Tensor:
        import torch

        logits_BC = logits.float()
        cross_entropy = torch.nn.functional.cross_entropy
        smoothing = spec.label_smoothing if spec else 0.0
        if spec is None or spec.kind != "focal":
            return cross_entropy(logits_BC, targets, weight=weights, reduction="sum", label_smoothing=smoothing)
        losses_B = cross_entropy(logits_BC, targets, weight=weights, reduction="none", label_smoothing=smoothing)
        missed_B = missed_probability(cross_entropy(logits_BC, targets, reduction="none"))
        return (missed_B**spec.gamma * losses_B).sum()

    def scores(self, fitted: FittedTarget, logits: np.ndarray) -> np.ndarray:
        shifted_BC = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        exponents_BC = np.exp(shifted_BC)
        scores_BC: np.ndarray = exponents_BC / exponents_BC.sum(axis=1, keepdims=True)
        return scores_BC

    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        return classification_metrics(scores, targets, n_bins)

    def metric(self, name: str, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> float | None:
        return classification_metrics(scores, targets, n_bins, [name]).get(name)

    def answer(self, fitted: FittedTarget, scores: np.ndarray) -> list[dict[str, Any]]:
        labels = self.labels(fitted)
        answers = []
        for best, rounded in zip(scores.argmax(1).tolist(), np.round(scores, 6).tolist(), strict=True):
            answers.append(
                {"label": labels[best], "score": rounded[best], "scores": dict(zip(labels, rounded, strict=True))}
            )
        return answers

    def prediction_columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        return {
            "prediction": pa.array([answer["label"] for answer in answers], pa.string()),
            "score": pa.array([answer["score"] for answer in answers], pa.float64()),
        }

    def align_scores(self, scores: np.ndarray, theirs: FittedTarget, ours: FittedTarget) -> np.ndarray:
        """Return the scores in the columns of `ours`, followed by the classes that only `theirs` has.

        So the answer of the model stays what it is: an answer with a class that `ours` does not have is wrong.
        """
        known = set(self.labels(ours))
        others = [column for column, label in enumerate(self.labels(theirs)) if label not in known]
        return np.hstack([super().align_scores(scores, theirs, ours), scores[:, others]])

    def labels_to_count(self, answer: dict[str, Any]) -> list[str]:
        return [answer["label"]]

    def example(self, fitted: FittedTarget) -> dict[str, Any]:
        first, second = self.labels(fitted)[:2]
        return {"label": first, "score": 0.98, "scores": {first: 0.98, second: 0.02}}
