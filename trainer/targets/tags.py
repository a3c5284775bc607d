"""Any number of tags out of those seen in training, none among them. Letters in shapes: B rows, C tags."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from trainer.contract.row_hash import content_keys
from trainer.features.cells import distinct
from trainer.features.cells import shown as quoted
from trainer.spec.run import Metric
from trainer.targets import tag_cells
from trainer.targets.base import Fitted, Target, code_of, in_columns_of, known_labels, missed
from trainer.targets.metrics.multilabel import THRESHOLD, tags_metrics

if TYPE_CHECKING:
    import torch

    from trainer.charts.section import Section
    from trainer.spec.data import Data
    from trainer.spec.train import Loss

# More different tags in one block are texts, not tags; the driver must not collect them.
_MOST_OF_A_BLOCK = 12_000
# The key of the number of rows in a tally: no tag is empty.
_ROWS = ""
_SEPARATOR = "tag_separator"


class Tags(Target):
    """A set of labels for each row; `fitted["labels"]` are all tags, sorted. A row without any is a row like others."""

    kind = "tags"
    loss_options: frozenset[Literal["focal", "label_smoothing"]] = frozenset({"focal"})
    metrics_known: tuple[Metric, ...] = (
        "micro_f1",
        "macro_f1",
        "weighted_f1",
        "macro_precision",
        "macro_recall",
        "exact_match",
        "roc_auc",
        "pr_auc",
        "log_loss",
    )
    metric: Metric = "micro_f1"
    loss = "log_loss"
    uses = frozenset({"data.tag_separator"})
    may_be_empty = True
    loose = True

    def settings(self, data: Data) -> dict[str, Any]:
        return {_SEPARATOR: data.tag_separator}

    def canonical(self, fitted: Fitted, values: pa.ChunkedArray) -> pa.ChunkedArray:
        separator = fitted.get(_SEPARATOR, tag_cells.SEPARATOR)
        cells, at = distinct(values)
        return _by_row([tag_cells.canonical(cell, separator) for cell in cells], at)

    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        found = tag_cells.read(values)
        return [_by_row([reason and f"{role} with {reason}" for reason in found.reasons], found.at)]

    def undeclared(self, role: str, values: pa.ChunkedArray, declared: list[str]) -> pa.ChunkedArray:
        found, known = tag_cells.read(values), set(declared)
        others = [next((tag for tag in tags if tag not in known), None) for tags in found.tags]
        return _by_row([None if tag is None else f"unknown tag {quoted(tag)}" for tag in others], found.at)

    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        found = tag_cells.read(values)
        counts: Counter[str] = Counter()
        rows = np.bincount(found.at, minlength=len(found.tags)).tolist()
        for tags, n_rows in zip(found.tags, rows, strict=True):
            for tag in tags:
                counts[tag] += n_rows
        return {**dict(counts.most_common(_MOST_OF_A_BLOCK)), _ROWS: len(values)}

    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        counts = {tag: count for tag, count in tally.items() if tag != _ROWS}
        labels = known_labels(role, counts, declared)
        if not labels:
            raise DataError("no training row has a tag, so there is nothing to learn", f"check data.columns.{role}")
        if all(counts[tag] == tally[_ROWS] for tag in labels):
            raise DataError(
                f"all training rows have the same tags {labels[:5]}, so there is nothing to learn",
                f"check data.columns.{role}, or add rows without some of them",
            )
        return {"labels": labels}

    def encode(self, fitted: Fitted, values: pa.Array) -> pa.Array:
        ids, at = self._ids(fitted, values)
        return pa.array(ids, pa.list_(pa.int32())).take(pa.array(at))

    def array(self, fitted: Fitted, encoded: pa.Array | pa.ChunkedArray) -> np.ndarray:
        found = np.zeros((len(encoded), self.width(fitted)), np.uint8)
        lengths = pc.fill_null(pc.list_value_length(encoded), 0)
        rows = np.repeat(np.arange(len(encoded)), np.asarray(lengths))
        found[rows, np.asarray(pc.list_flatten(encoded))] = 1
        return found

    def codes(self, fitted: Fitted, values: pa.Array) -> np.ndarray:
        ids, at = self._ids(fitted, values)
        keys = content_keys([np.array(row or [], "<i4").tobytes() for row in ids])
        unknown = np.array([row is None for row in ids], bool)
        return np.where(unknown, np.int32(-1), code_of(keys))[at]

    def _ids(self, fitted: Fitted, values: pa.Array) -> tuple[list[list[int] | None], np.ndarray]:
        """Return the sorted ids of each different cell, None where one is unknown, and each row's place among them."""
        found = tag_cells.read(values)
        place = {label: number for number, label in enumerate(self.labels(fitted))}
        rows: list[list[int] | None] = []
        for tags, reason in zip(found.tags, found.reasons, strict=True):
            usable = reason is None and all(tag in place for tag in tags)
            rows.append(sorted(place[tag] for tag in tags) if usable else None)
        return rows, found.at

    def tensor(self, fitted: Fitted, targets: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(targets.astype(np.float32))

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        how: Loss | None = None,
    ) -> torch.Tensor:
        import torch

        by_tag = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        if how is not None and how.kind == "focal":
            by_tag = missed(by_tag) ** how.gamma * by_tag
        return by_tag.mean(dim=1).sum()

    def scores(self, fitted: Fitted, logits: np.ndarray) -> np.ndarray:
        found: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))  # a sigmoid that cannot overflow
        return found

    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        return tags_metrics(scores, targets)

    def answer(self, fitted: Fitted, scores: np.ndarray) -> list[dict[str, Any]]:
        labels = self.labels(fitted)
        order = np.argsort(-scores, axis=1, kind="stable")
        answers = []
        for row, rounded, best_first in zip(scores, np.round(scores, 6).tolist(), order, strict=True):
            answers.append(
                {
                    "labels": [labels[at] for at in best_first if row[at] >= THRESHOLD],
                    "scores": dict(zip(labels, rounded, strict=True)),
                }
            )
        return answers

    def columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        predictions = [json.dumps(answer["labels"], ensure_ascii=False) for answer in answers]
        return {
            "prediction": pa.array(predictions, pa.string()),
            "score": pa.array([max(answer["scores"].values()) for answer in answers], pa.float64()),
        }

    def counted(self, answer: dict[str, Any]) -> list[str]:
        return answer["labels"] or ["(none)"]

    def example(self, fitted: Fitted) -> dict[str, Any]:
        first, *others = self.labels(fitted)[:2]
        return {"labels": [first], "scores": {first: 0.98, **dict.fromkeys(others, 0.02)}}

    def aligned(self, scores: np.ndarray, theirs: Fitted, ours: Fitted) -> np.ndarray:
        return in_columns_of(scores, self.labels(theirs), self.labels(ours))

    def sections(
        self, fitted: Fitted, shown: Sequence[str], scores: np.ndarray, targets: np.ndarray, n_bins: int, n_worst: int
    ) -> list[Section]:
        from trainer.targets.sections import tags as tags_sections

        return tags_sections.sections(self.labels(fitted), shown, scores, targets, n_worst)


def _by_row(found: Sequence[str | None], at: np.ndarray) -> pa.ChunkedArray:
    """Return for each row what was found for its cell, being at that place among the different ones."""
    return pa.chunked_array([pa.array(found, pa.string()).take(pa.array(at))])
