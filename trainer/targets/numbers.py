"""Target: a number, such as a price, a score or a duration. Letters in shapes: B rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import DataError, SpecError
from trainer.contract.row_hash import hash_position
from trainer.features.cells import ParsedColumn
from trainer.features.exact import exact_mean, exact_std, exact_sums
from trainer.features.numeric import read_numbers
from trainer.spec.evaluate import Metric
from trainer.spec.features import NumericSpec
from trainer.targets.base import FittedTarget, Target
from trainer.targets.metrics.regression import regression_metrics

if TYPE_CHECKING:
    import torch

    from trainer.spec.train import LossSpec

# The rules of a numeric column, except that no word means "missing": a row without its target cannot be used.
_RULES = NumericSpec(missing_words=[])
# Beyond these bounds the square of an error overflows or underflows float64.
_MIN_STD, _MAX_STD = 1e-150, 1e150
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Numbers(Target):
    """One number. `fitted["target"]` has the mean and the standard deviation of the training rows.

    A model predicts (number - mean) / std. All metrics, including the loss, are in the number's own units.
    """

    kind = "number"
    metric_names: tuple[Metric, ...] = ("rmse", "mae", "mse", "r2", "pearson", "spearman")
    default_metric: Metric = "rmse"
    loss_metric = "mse"
    has_labels = False
    accepts_any_type = True

    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        reasons: list[str | None] = [None] * len(values)
        for row, reason in _read(values).bad.items():
            reasons[row] = f"{role} {reason}"
        return [pa.chunked_array([pa.array(reasons, pa.string())])]

    def check_declared(self, role: str, values: pa.ChunkedArray, declared: list[str]) -> pa.ChunkedArray:
        raise _labels_error(role)

    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        present = _read(values).present_values()
        total, squares = exact_sums(present)
        return {"count": len(present), "sum": total, "squares": squares}

    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        if declared is not None:
            raise _labels_error(role)
        count = tally.get("count", 0)
        if not count:
            raise DataError(f"no training row has a usable {role}", f"check `data.columns.{role}`")
        mean, std = exact_mean(tally["sum"], count), exact_std(tally["sum"], tally["squares"], count)
        if std == 0.0:
            raise DataError(
                f"the {role} of all {count:,} training rows is {mean:g}, so there is nothing to learn",
                f"check `data.columns.{role}`, or add rows with another {role}",
            )
        if not _MIN_STD < std < _MAX_STD:
            raise DataError(
                f"the {role} of the training rows has a standard deviation of {std:g}, which float64 cannot square",
                f"give the {role} in other units, and check its largest values",
            )
        return {"target": {"mean": mean, "std": std}}

    def encode(self, fitted: FittedTarget, values: pa.Array) -> pa.Array:
        parsed = _read(values)
        is_unknown = parsed.missing
        is_unknown[list(parsed.bad)] = True
        return pa.array(parsed.values, pa.float64(), mask=is_unknown)

    def array(self, fitted: FittedTarget, encoded: pa.Array | pa.ChunkedArray) -> np.ndarray:
        # A null becomes NaN.
        return encoded.to_numpy() if isinstance(encoded, pa.ChunkedArray) else encoded.to_numpy(zero_copy_only=False)

    def codes(self, fitted: FittedTarget, values: pa.Array) -> np.ndarray:
        numbers_B = self.array(fitted, self.encode(fitted, values))
        # "3", "3.0" and "3e0" are the same number, and so are 0 and -0: adding 0 makes them equal.
        positions_B = hash_position((numbers_B + 0.0).view(np.uint64), 0, "target")
        return np.where(np.isnan(numbers_B), -1, positions_B * 2.0**31).astype(np.int32)  # floor: 0 to 2**31 - 1

    def tensor(self, fitted: FittedTarget, targets: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.training_values(fitted, targets))

    def training_values(self, fitted: FittedTarget, targets: np.ndarray) -> np.ndarray:
        mean, std = _mean_and_std(fitted)
        with np.errstate(over="ignore"):
            standardized_B = np.clip((targets - mean) / std, -_FLOAT32_MAX, _FLOAT32_MAX)
        return standardized_B.astype(np.float32)

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        spec: LossSpec | None = None,
    ) -> torch.Tensor:
        import torch

        return torch.nn.functional.mse_loss(logits[:, 0].float(), targets, reduction="sum")

    def scale_loss(self, fitted: FittedTarget, loss: float) -> float:
        return loss * _mean_and_std(fitted)[1] ** 2

    def unit(self, fitted: FittedTarget) -> float:
        return _mean_and_std(fitted)[1]

    def scores(self, fitted: FittedTarget, logits: np.ndarray) -> np.ndarray:
        mean, std = _mean_and_std(fitted)
        numbers: np.ndarray = logits.astype(np.float64) * std + mean
        return numbers

    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        return regression_metrics(scores[:, 0], targets)

    def metric(self, name: str, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> float | None:
        return regression_metrics(scores[:, 0], targets, [name]).get(name)

    def answer(self, fitted: FittedTarget, scores: np.ndarray) -> list[dict[str, Any]]:
        digits = significant_decimals(fitted)
        return [{"value": round(float(value), digits) + 0.0} for value in scores[:, 0]]

    def prediction_columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        return {
            "prediction": pa.array([answer["value"] for answer in answers], pa.float64()),
            "score": pa.nulls(len(answers), pa.float64()),
        }

    def example(self, fitted: FittedTarget) -> dict[str, Any]:
        return self.answer(fitted, np.array([[_mean_and_std(fitted)[0]]]))[0]


def significant_decimals(fitted: FittedTarget) -> int:
    """Return how many decimals of a number matter: down to a hundred-thousandth of the standard deviation."""
    return 5 - math.floor(math.log10(_mean_and_std(fitted)[1]))


def _read(values: pa.Array | pa.ChunkedArray) -> ParsedColumn:
    return read_numbers(_RULES, values)


def _mean_and_std(fitted: FittedTarget) -> tuple[float, float]:
    target = fitted["target"]
    return target["mean"], target["std"]


def _labels_error(role: str) -> SpecError:
    return SpecError(
        f"data.labels lists classes or tags, but the {role} of this task is a number", "remove `data.labels`"
    )
