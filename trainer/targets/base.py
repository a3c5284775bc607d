"""The interface of a target: what a model predicts, with its loss, metrics and answers.

The argument `fitted` of the methods is `Contract.fitted`. It holds what `Target.fit` returned, `Target.settings`, and
what the task fitted for its inputs.

Letters in shapes: B rows, C outputs of the model (classes, tags, or 1 for a number).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.contract.row_hash import hash_contents
from trainer.spec.evaluate import Metric
from trainer.targets.arrays import codes_of_hashes, reason_where
from trainer.targets.label_sets import reorder_scores
from trainer.values.words import canonical_word

if TYPE_CHECKING:
    import torch

    from trainer.spec.data import DataSpec
    from trainer.spec.train import LossSpec

#: The fitted part of a contract, plain JSON.
FittedTarget = Mapping[str, Any]


class Target(ABC):
    """Base class of all targets. Methods are plain functions of their arguments and keep no state between calls.

    The report's sections about predictions are not part of the class: `trainer.targets.report` has one function per
    kind of target. A target without such a function has no such sections.
    """

    # ---- Must be written -------------------------------------------------------------------------------------------

    #: Name of the kind of target in `Contract.types`.
    kind: str
    #: The metrics that `metrics` computes and that a spec may name in `evaluate.metric`.
    metric_names: tuple[Metric, ...]
    #: The default of `evaluate.metric`.
    default_metric: Metric
    #: The metric that is the validation loss; learning curves show it next to the training loss.
    loss_metric: str

    # From cells of the target's column to stored values.

    @abstractmethod
    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        """Return columns of reasons (string, null for a good value) for the raw `values` (string) of the role `role`.

        Null and empty values are checked elsewhere, in the same way for all roles.
        """

    @abstractmethod
    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        """Return counts of one block's usable values; raymill adds them up by key over all blocks."""

    @abstractmethod
    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        """Return what the training rows teach about the target, as plain JSON; `tally` is summed over all blocks.

        `declared` is the spec's `data.labels`. Raises `DataError` if nothing can be learned.
        """

    @abstractmethod
    def encode(self, fitted: FittedTarget, values: pa.Array) -> pa.Array:
        """Return the form in which raw `values` (string) are stored: always the same Arrow type; null if unknown."""

    @abstractmethod
    def array(self, fitted: FittedTarget, encoded: pa.ChunkedArray) -> np.ndarray:
        """Return encoded targets as `metrics` takes them: shape (B,), or (B, C) for tags."""

    # Loss and metrics.

    @abstractmethod
    def tensor(self, fitted: FittedTarget, targets: np.ndarray) -> torch.Tensor:
        """Return targets as `loss_sum` takes them, from the result of `array`."""

    @abstractmethod
    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        spec: LossSpec | None = None,
    ) -> torch.Tensor:
        """Return the summed loss of a batch, for logits (B, C) and targets as `tensor` returns them.

        It is a sum, not a mean, so that the losses of several workers can be added. `weights` (C,) holds the weight of
        the rows of each class; `spec` is `train.loss` if it is not the default.
        """

    @abstractmethod
    def scores(self, fitted: FittedTarget, logits: np.ndarray) -> np.ndarray:
        """Return float64 scores (B, C) for float logits (B, C): probabilities, or the number itself."""

    @abstractmethod
    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        """Return the metrics in `metric_names`, and any others, for scores (B, C) and targets as `array` returns them.

        `n_bins` is the number of calibration bins. A metric that is not defined for these rows is left out. Whether it
        is defined depends on the targets alone, and so do the labels that an average covers: the gate compares two
        models on the same rows.
        """

    # Answers.

    @abstractmethod
    def answer(self, fitted: FittedTarget, scores: np.ndarray) -> list[dict[str, Any]]:
        """Return one JSON object per row of scores (B, C), as HTTP clients see it."""

    @abstractmethod
    def prediction_columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        """Return the columns `prediction` and `score` of a prediction file. Their types never depend on the answers."""

    @abstractmethod
    def example(self, fitted: FittedTarget) -> dict[str, Any]:
        """Return an example answer for the documentation."""

    # ---- May be overridden -----------------------------------------------------------------------------------------

    #: Further metrics that `metrics` computes on held-out rows alone, not after every epoch: the gate may decide on them.
    held_out_metric_names: tuple[Metric, ...] = ()
    #: Whether each row has one class, so that a spec may balance the rows and stratify the split by class.
    has_classes = False
    #: Whether `data.labels` may list the labels.
    has_labels = True
    #: Whether an empty cell is a value, such as "no tags".
    may_be_empty = False
    #: Whether raw values may have any type (numbers, lists); they are read as text.
    accepts_any_type = False
    #: The options of `train.loss` that `loss_sum` implements.
    loss_options: frozenset[Literal["focal", "label_smoothing"]] = frozenset()
    #: The keys in `trainer.tasks.spec_keys.OPTIONAL_KEYS` that this target uses.
    used_keys: frozenset[str] = frozenset()

    def settings(self, data: DataSpec) -> dict[str, Any]:
        """Return the settings that the target takes from the spec's `data`; in `Contract.fitted` even before `fit`."""
        return {}

    def canonicalize(self, fitted: FittedTarget, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return raw values (string, null for an empty cell) in the one spelling that all other methods take.

        `fitted` holds the `settings`. A mistake in a value is not corrected; `check` reports it.
        """
        return values

    def check_declared(self, role: str, values: pa.ChunkedArray, declared: list[str]) -> pa.ChunkedArray:
        """Return a reason for each value that is not in `declared`, and null for the others."""
        return reason_where(
            pc.invert(pc.is_in(values, value_set=pa.array(map(canonical_word, declared), pa.string()))),
            f"unknown {role}",
        )

    def codes(self, fitted: FittedTarget, values: pa.Array) -> np.ndarray:
        """Return int32 codes, shape (B,): -1 for an unknown value, else non-negative and equal for equal targets.

        A code depends only on its value, never on the other values of the call, because each block of rows is coded
        separately. The default is a hash of the raw value.
        """
        known = self.encode(fitted, values).is_valid().to_numpy(zero_copy_only=False)
        keys = hash_contents([value or "" for value in values.to_pylist()])
        return np.where(known, codes_of_hashes(keys), np.int32(-1))

    def labels(self, fitted: FittedTarget) -> list[str]:
        """Return the names of the model's outputs: classes or tags; empty for a number."""
        labels: list[str] = fitted.get("labels", [])
        return labels

    def width(self, fitted: FittedTarget) -> int:
        """Return the number of model outputs, C."""
        return max(1, len(self.labels(fitted)))

    def training_values(self, fitted: FittedTarget, targets: np.ndarray) -> np.ndarray:
        """Return targets for estimators that do not use torch: int64 class ids or float32 numbers, shape (B,)."""
        return self.tensor(fitted, targets).numpy()

    def metric(self, name: str, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> float | None:
        """Return one of the `metrics`; None if it is not defined for these rows.

        Override it if one metric takes much less time than all of them: tests of significance compute it many times.
        """
        return self.metrics(scores, targets, n_bins).get(name)

    def scale_loss(self, fitted: FittedTarget, loss: float) -> float:
        """Return a mean loss, computed with `loss_sum`, in the units of the metric `loss_metric`."""
        return loss

    def stable_scores(self, scores: np.ndarray) -> np.ndarray:
        """Return what golden rows compare of scores (B, C): what differs between machines by rounding alone.

        The default is the scores themselves.
        """
        return scores

    def unit(self, fitted: FittedTarget) -> float:
        """Return the size of a score change that matters: 1 for probabilities, the standard deviation for numbers."""
        return 1.0

    def labels_to_count(self, answer: dict[str, Any]) -> list[str]:
        """Return the labels under which a replica counts one answer in its metrics."""
        return ["value"]

    def align_scores(self, scores: np.ndarray, theirs: FittedTarget, ours: FittedTarget) -> np.ndarray:
        """Return the scores of a model that was fitted as `theirs` in the columns of `ours`; missing labels score 0.

        Further columns may follow, if `metrics` takes them.
        """
        labels = self.labels(ours)
        return reorder_scores(scores, self.labels(theirs), labels) if labels else scores
