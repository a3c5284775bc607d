"""One class out of those seen in training. Letters in shapes: B rows, C classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from cluster.text import blank_values
from trainer.spec.run import Metric
from trainer.targets.base import Fitted, Target, in_columns_of, known_labels, missed, where
from trainer.targets.metrics import classification as figures

if TYPE_CHECKING:
    import torch

    from trainer.charts.section import Section
    from trainer.spec.train import Loss

# A column with more different values in one block is an id or a text, not a class; the driver must not collect them.
_MOST_OF_A_BLOCK = 12_000


class Classes(Target):
    """Exactly one of a set of labels; `fitted["labels"]` are they, sorted."""

    kind = "class"
    metrics_known: tuple[Metric, ...] = (
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
    metric: Metric = "macro_f1"
    loss = "log_loss"
    has_classes = True
    loss_options: frozenset[Literal["focal", "label_smoothing"]] = frozenset({"focal", "label_smoothing"})

    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        # "tool " would be a class of its own, and nobody would see why.
        padded = pc.not_equal(pc.utf8_trim_whitespace(values), values)
        return [
            where(blank_values(values), f"no visible character in {role}"),
            where(padded, f"{role} with white space around it"),
        ]

    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        return dict(Counter(values.to_pylist()).most_common(_MOST_OF_A_BLOCK))

    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        labels = known_labels(role, tally, declared)
        if len(labels) < 2:
            raise DataError(
                f"the training rows have {len(labels)} class: {labels}; there must be at least 2",
                f"check data.columns.{role}, or add rows of another class",
            )
        return {"labels": labels}

    def encode(self, fitted: Fitted, values: pa.Array) -> pa.Array:
        return pc.index_in(values, value_set=pa.array(fitted["labels"], pa.string()))

    def codes(self, fitted: Fitted, values: pa.Array) -> np.ndarray:
        return self.array(fitted, self.encode(fitted, values))

    def array(self, fitted: Fitted, encoded: pa.Array | pa.ChunkedArray) -> np.ndarray:
        filled = pc.fill_null(encoded, -1)
        joined = filled.combine_chunks() if isinstance(filled, pa.ChunkedArray) else filled
        found: np.ndarray = joined.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        return found

    def as_learned(self, fitted: Fitted, targets: np.ndarray) -> np.ndarray:
        return targets.astype(np.int64)

    def tensor(self, fitted: Fitted, targets: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.as_learned(fitted, targets))

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        how: Loss | None = None,
    ) -> torch.Tensor:
        import torch

        logits_BC = logits.float()
        cross_entropy = torch.nn.functional.cross_entropy
        smoothing = how.label_smoothing if how else 0.0
        if how is None or how.kind != "focal":
            return cross_entropy(logits_BC, targets, weight=weights, reduction="sum", label_smoothing=smoothing)
        losses_B = cross_entropy(logits_BC, targets, weight=weights, reduction="none", label_smoothing=smoothing)
        missed_B = missed(cross_entropy(logits_BC, targets, reduction="none"))
        return (missed_B**how.gamma * losses_B).sum()

    def scores(self, fitted: Fitted, logits: np.ndarray) -> np.ndarray:
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        exponents = np.exp(shifted)
        found: np.ndarray = exponents / exponents.sum(axis=1, keepdims=True)
        return found

    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        return figures.classification_metrics(scores, targets, n_bins)

    def answer(self, fitted: Fitted, scores: np.ndarray) -> list[dict[str, Any]]:
        labels = self.labels(fitted)
        answers = []
        for best, rounded in zip(scores.argmax(1).tolist(), np.round(scores, 6).tolist(), strict=True):
            answers.append(
                {"label": labels[best], "score": rounded[best], "scores": dict(zip(labels, rounded, strict=True))}
            )
        return answers

    def columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        return {
            "prediction": pa.array([answer["label"] for answer in answers], pa.string()),
            "score": pa.array([answer["score"] for answer in answers], pa.float64()),
        }

    def counted(self, answer: dict[str, Any]) -> list[str]:
        return [answer["label"]]

    def example(self, fitted: Fitted) -> dict[str, Any]:
        first, second = self.labels(fitted)[:2]
        return {"label": first, "score": 0.98, "scores": {first: 0.98, second: 0.02}}

    def aligned(self, scores: np.ndarray, theirs: Fitted, ours: Fitted) -> np.ndarray:
        return in_columns_of(scores, self.labels(theirs), self.labels(ours))

    def sections(
        self, fitted: Fitted, shown: Sequence[str], scores: np.ndarray, targets: np.ndarray, n_bins: int, n_worst: int
    ) -> list[Section]:
        from trainer.targets.sections import classes as classes_sections

        return classes_sections.sections(self.labels(fitted), shown, scores, targets, n_bins, n_worst)
