"""Target: any number of tags, including none. Letters in shapes: B rows, C tags."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from trainer.contract.row_hash import hash_contents
from trainer.features.cells import format_cell
from trainer.spec.evaluate import Metric
from trainer.targets.arrays import codes_of_hashes, missed_probability
from trainer.targets.base import FittedTarget, Target
from trainer.targets.label_sets import known_labels
from trainer.targets.metrics.multilabel import THRESHOLD, tags_metrics
from trainer.targets.tag_cells import DEFAULT_SEPARATOR, canonical_tags, read_tags
from trainer.values.columns import distinct_texts, one_array
from trainer.values.words import canonical_word

if TYPE_CHECKING:
    import torch

    from trainer.spec.data import DataSpec
    from trainer.spec.train import LossSpec

# More distinct tags in one block are texts, not tags; the driver must not collect them.
_MAX_BLOCK_TAGS = 12_000
# The key of a tally that counts the rows. It cannot be a tag, because no tag is empty.
_ROWS = ""
_SEPARATOR = "tag_separator"


class Tags(Target):
    """A set of labels per row. `fitted["labels"]` are all tags, sorted. A row without tags is valid."""

    kind = "tags"
    loss_options: frozenset[Literal["focal", "label_smoothing"]] = frozenset({"focal"})
    metric_names: tuple[Metric, ...] = (
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
    default_metric: Metric = "micro_f1"
    loss_metric = "log_loss"
    used_keys = frozenset({"data.tag_separator"})
    may_be_empty = True
    accepts_any_type = True

    def settings(self, data: DataSpec) -> dict[str, Any]:
        return {_SEPARATOR: data.tag_separator}

    def canonicalize(self, fitted: FittedTarget, values: pa.ChunkedArray) -> pa.ChunkedArray:
        separator = fitted.get(_SEPARATOR, DEFAULT_SEPARATOR)
        cells, cell_of_row = distinct_texts(one_array(values))
        return _spread_to_rows([canonical_tags(cell, separator) for cell in cells], cell_of_row)

    def check(self, role: str, values: pa.ChunkedArray) -> list[pa.ChunkedArray]:
        cells = read_tags(values)
        return [_spread_to_rows([reason and f"{role} with {reason}" for reason in cells.reasons], cells.cell_of_row)]

    def check_declared(self, role: str, values: pa.ChunkedArray, declared: list[str]) -> pa.ChunkedArray:
        cells, known = read_tags(values), set(map(canonical_word, declared))
        unknown = [next((tag for tag in tags if tag not in known), None) for tags in cells.tags]
        reasons = [None if tag is None else f"unknown tag {format_cell(tag)}" for tag in unknown]
        return _spread_to_rows(reasons, cells.cell_of_row)

    def tally(self, values: pa.ChunkedArray) -> dict[str, int]:
        cells = read_tags(values)
        counts: Counter[str] = Counter()
        rows_per_cell = np.bincount(cells.cell_of_row, minlength=len(cells.tags)).tolist()
        for tags, n_rows in zip(cells.tags, rows_per_cell, strict=True):
            for tag in tags:
                counts[tag] += n_rows
        return {**dict(counts.most_common(_MAX_BLOCK_TAGS)), _ROWS: len(values)}

    def fit(self, role: str, tally: Mapping[str, int], declared: list[str] | None) -> dict[str, Any]:
        counts = {tag: count for tag, count in tally.items() if tag != _ROWS}
        labels = known_labels(role, counts, declared)
        if not labels:
            raise DataError("no training row has a tag, so there is nothing to learn", f"check `data.columns.{role}`")
        if all(counts[tag] == tally[_ROWS] for tag in labels):
            raise DataError(
                f"all training rows have the same tags {labels[:5]}, so there is nothing to learn",
                f"check `data.columns.{role}`, or add rows without some of these tags",
            )
        return {"labels": labels}

    def encode(self, fitted: FittedTarget, values: pa.Array) -> pa.Array:
        ids, cell_of_row = self._ids(fitted, values)
        return pa.array(ids, pa.list_(pa.int32())).take(pa.array(cell_of_row))

    def array(self, fitted: FittedTarget, encoded: pa.Array | pa.ChunkedArray) -> np.ndarray:
        targets_BC = np.zeros((len(encoded), self.width(fitted)), np.uint8)
        lengths = pc.fill_null(pc.list_value_length(encoded), 0)
        rows = np.repeat(np.arange(len(encoded)), np.asarray(lengths))
        targets_BC[rows, np.asarray(pc.list_flatten(encoded))] = 1
        return targets_BC

    def codes(self, fitted: FittedTarget, values: pa.Array) -> np.ndarray:
        ids, cell_of_row = self._ids(fitted, values)
        keys = hash_contents([np.array(row or [], "<i4").tobytes() for row in ids])
        is_unknown = np.array([row is None for row in ids], bool)
        return np.where(is_unknown, np.int32(-1), codes_of_hashes(keys))[cell_of_row]

    def _ids(self, fitted: FittedTarget, values: pa.Array) -> tuple[list[list[int] | None], np.ndarray]:
        """Return the sorted tag ids of each distinct cell, None if a tag is unknown, and each row's distinct cell."""
        cells = read_tags(values)
        id_of = {label: number for number, label in enumerate(self.labels(fitted))}
        ids: list[list[int] | None] = []
        for tags, reason in zip(cells.tags, cells.reasons, strict=True):
            is_usable = reason is None and all(tag in id_of for tag in tags)
            ids.append(sorted(id_of[tag] for tag in tags) if is_usable else None)
        return ids, cells.cell_of_row

    def tensor(self, fitted: FittedTarget, targets: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(targets.astype(np.float32))

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        spec: LossSpec | None = None,
    ) -> torch.Tensor:
        import torch

        losses_BC = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        if spec is not None and spec.kind == "focal":
            losses_BC = missed_probability(losses_BC) ** spec.gamma * losses_BC
        return losses_BC.mean(dim=1).sum()

    def scores(self, fitted: FittedTarget, logits: np.ndarray) -> np.ndarray:
        scores_BC: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))  # a sigmoid without overflow
        return scores_BC

    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        return tags_metrics(scores, targets)

    def metric(self, name: str, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> float | None:
        return tags_metrics(scores, targets, [name]).get(name)

    def answer(self, fitted: FittedTarget, scores: np.ndarray) -> list[dict[str, Any]]:
        labels = self.labels(fitted)
        order_BC = np.argsort(-scores, axis=1, kind="stable")
        answers = []
        for row, rounded, best_first in zip(scores, np.round(scores, 6).tolist(), order_BC, strict=True):
            answers.append(
                {
                    "labels": [labels[tag] for tag in best_first if row[tag] >= THRESHOLD],
                    "scores": dict(zip(labels, rounded, strict=True)),
                }
            )
        return answers

    def prediction_columns(self, answers: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        predictions = [json.dumps(answer["labels"], ensure_ascii=False) for answer in answers]
        return {
            "prediction": pa.array(predictions, pa.string()),
            "score": pa.array([max(answer["scores"].values()) for answer in answers], pa.float64()),
        }

    def labels_to_count(self, answer: dict[str, Any]) -> list[str]:
        return answer["labels"] or ["(none)"]

    def example(self, fitted: FittedTarget) -> dict[str, Any]:
        first, *others = self.labels(fitted)[:2]
        return {"labels": [first], "scores": {first: 0.98, **dict.fromkeys(others, 0.02)}}


def _spread_to_rows(values: Sequence[str | None], cell_of_row: np.ndarray) -> pa.ChunkedArray:
    """Return the value of each row's cell, given one value per distinct cell."""
    return pa.chunked_array([pa.array(values, pa.string()).take(pa.array(cell_of_row))])
