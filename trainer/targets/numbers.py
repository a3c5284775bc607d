"""A number: a price, a score, a duration. Letters in shapes: B rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import DataError, SpecError
from trainer.contract import row_hash
from trainer.features import exact, numeric
from trainer.features.cells import Read
from trainer.spec.features import Numeric
from trainer.spec.run import Metric
from trainer.targets.base import Fitted, Target
from trainer.targets.metrics.regression import regression_metrics

if TYPE_CHECKING:
    import torch

    from trainer.charts.section import Section
    from trainer.spec.train import Loss

# The same rules as for a column of numbers, but that no word means a missing one: a row without its target is unusable.
_RULES = Numeric(missing_words=[])
# Beyond these the square of an error is no float64.
_LEAST_STD, _MOST_STD = 1e-150, 1e150
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Numbers(Target):
    """One number; `fitted["target"]` has the mean and the standard deviation of the training rows.

    A model predicts (number - mean) / std. All figures, the loss among them, are in the number's own units.
    """

    kind = "number"
    metrics_known: tuple[Metric, ...] = ("rmse", "mae", "mse", "r2", "pearson", "spearman")
    metric: Metric = "rmse"
    loss = "mse"
    has_labels = False
    loose = True

    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        reasons: list[str | None] = [None] * len(values)
        for row, reason in _read(values).bad.items():
            reasons[row] = f"{role} {reason}"
        return [pa.chunked_array([pa.array(reasons, pa.string())])]

    def undeclared(self, role: str, values: pa.ChunkedArray, declared: list[str]) -> pa.ChunkedArray:
        raise _no_labels(role)

    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        present = _read(values).present()
        total, squares = exact.sums(present)
        return {"count": len(present), "sum": total, "squares": squares}

    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        if declared is not None:
            raise _no_labels(role)
        count = tally.get("count", 0)
        if not count:
            raise DataError(f"no training row has a {role} that can be used", f"check data.columns.{role}")
        mean, std = exact.mean(tally["sum"], count), exact.std(tally["sum"], tally["squares"], count)
        if std == 0.0:
            raise DataError(
                f"the {role} of all {count:,} training rows is {mean:g}, so there is nothing to learn",
                f"check data.columns.{role}, or add rows with another {role}",
            )
        if not _LEAST_STD < std < _MOST_STD:
            raise DataError(
                f"the {role} of the training rows has a standard deviation of {std:g}, too far from 1 to compute with",
                f"give the {role} in other units, and check its largest values",
            )
        return {"target": {"mean": mean, "std": std}}

    def encode(self, fitted: Fitted, values: pa.Array) -> pa.Array:
        found = _read(values)
        unknown = found.missing
        unknown[list(found.bad)] = True
        return pa.array(found.values, pa.float64(), mask=unknown)

    def array(self, fitted: Fitted, encoded: pa.Array | pa.ChunkedArray) -> np.ndarray:
        # A null becomes NaN.
        return encoded.to_numpy() if isinstance(encoded, pa.ChunkedArray) else encoded.to_numpy(zero_copy_only=False)

    def codes(self, fitted: Fitted, values: pa.Array) -> np.ndarray:
        numbers = self.array(fitted, self.encode(fitted, values))
        # "3", "3.0" and "3e0" are one number, and so are 0 and -0: adding 0 makes one of them.
        places = row_hash.position((numbers + 0.0).view(np.uint64), 0, "target")
        return np.where(np.isnan(numbers), -1, places * 2.0**31).astype(np.int32)  # floor: 0 to 2**31 - 1

    def as_learned(self, fitted: Fitted, targets: np.ndarray) -> np.ndarray:
        mean, std = _scale(fitted)
        with np.errstate(over="ignore"):
            standardised = np.clip((targets - mean) / std, -_FLOAT32_MAX, _FLOAT32_MAX)
        return standardised.astype(np.float32)

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

        return torch.nn.functional.mse_loss(logits[:, 0].float(), targets, reduction="sum")

    def unit(self, fitted: Fitted) -> float:
        return _scale(fitted)[1]

    def in_units(self, fitted: Fitted, loss: float) -> float:
        return loss * _scale(fitted)[1] ** 2

    def scores(self, fitted: Fitted, logits: np.ndarray) -> np.ndarray:
        mean, std = _scale(fitted)
        found: np.ndarray = logits.astype(np.float64) * std + mean
        return found

    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        return regression_metrics(scores[:, 0], targets)

    def answer(self, fitted: Fitted, scores: np.ndarray) -> list[dict[str, Any]]:
        digits = _digits(fitted)
        return [{"value": round(float(value), digits) + 0.0} for value in scores[:, 0]]

    def columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        return {
            "prediction": pa.array([answer["value"] for answer in answers], pa.float64()),
            "score": pa.nulls(len(answers), pa.float64()),
        }

    def counted(self, answer: dict[str, Any]) -> list[str]:
        return ["value"]

    def example(self, fitted: Fitted) -> dict[str, Any]:
        return self.answer(fitted, np.array([[_scale(fitted)[0]]]))[0]

    def aligned(self, scores: np.ndarray, theirs: Fitted, ours: Fitted) -> np.ndarray:
        return scores

    def sections(
        self, fitted: Fitted, shown: Sequence[str], scores: np.ndarray, targets: np.ndarray, n_bins: int, n_worst: int
    ) -> list[Section]:
        from trainer.targets.sections import numbers as numbers_sections

        return numbers_sections.sections(shown, scores[:, 0], targets, n_worst, _digits(fitted))


def _read(values: pa.Array | pa.ChunkedArray) -> Read:
    return numeric.read(_RULES, values)


def _scale(fitted: Fitted) -> tuple[float, float]:
    target = fitted["target"]
    return target["mean"], target["std"]


def _digits(fitted: Fitted) -> int:
    """Return how many digits behind the point tell anything: to a hundred-thousandth of the standard deviation."""
    return 5 - math.floor(math.log10(_scale(fitted)[1]))


def _no_labels(role: str) -> SpecError:
    return SpecError(f"data.labels lists classes or tags, and the {role} of this task is a number", "take it out")
