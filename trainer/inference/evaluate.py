"""Labeled rows, and the metrics of a model on them for scores that `trainer.inference.scoring` has computed.

Letters in shapes: B rows, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import DataError, ModelError
from cluster.files import json_sha256
from trainer.charts.section import ReportSection, sections_or_reason
from trainer.contract.contract import Contract
from trainer.data.prepare.row_checks import check_rows
from trainer.data.readers.evidence import explain_reason
from trainer.data.readers.read import read_blocks
from trainer.data.readers.read_options import read_options_of_contract
from trainer.data.sources.source_file import INPUT
from trainer.data.sources.source_files import find_source_files
from trainer.spec.format import FormatSpec
from trainer.steps.cleaner import Cleaner
from trainer.targets.report import ScoredRows, prediction_sections
from trainer.tasks.base import Task
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.roles import input_roles, target_values

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class LabeledRows:
    """Raw rows with their targets."""

    columns: dict[str, list[Any]]
    """Role -> raw values of the inputs."""
    targets: list[str | None]
    """Raw values of the target."""
    digest: str
    """Hex digest of the rows' content, whatever their order. Evaluations with equal digests are comparable."""

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Evaluation:
    """The metrics and scores of a model on labeled rows."""

    metrics: dict[str, float]
    sections: list[ReportSection]
    """The sections of the report."""
    rows: int
    rows_digest: str
    scores: np.ndarray
    """float64, shape (B, C)"""


def with_digest(columns: dict[str, list[Any]], targets: list[str | None]) -> LabeledRows:
    """Return labeled rows with the digest of their content."""
    cells = [[_as_json(value) for value in values] for values in (*columns.values(), targets)]
    rows = sorted(json.dumps(row) for row in zip(*cells, strict=True))
    return LabeledRows(columns, targets, json_sha256([list(columns), rows]))


def _as_json(value: Any) -> Any:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value


def read_labeled(
    paths: str | list[str], contract: Contract, folder: Path, reading: FormatSpec | str = "auto"
) -> LabeledRows:
    """Return the rows of labeled files for the model in `folder`, which has this contract.

    Raises `DataError` naming the first row that cannot be used.
    """
    task = task_of_contract(contract)
    encoder = task.encoder(contract, folder)
    columns: dict[str, list[Any]] = {role: [] for role in input_roles(task, contract)}
    targets: list[str | None] = []
    cleaner = Cleaner(contract)
    options = read_options_of_contract(contract, contract.columns)
    for file in find_source_files(paths, INPUT, reading):
        for block in read_blocks(file, *options):
            checked = check_rows(task, contract, task.split_rows(contract, encoder, block), cleaner)
            if len(checked.bad):
                first = checked.bad.slice(0, 1).to_pylist()[0]
                raise DataError(
                    f"row {first['row']} of {file.path} cannot be used: {first['reason']}"
                    f"{explain_reason(first['reason'], file.path)}",
                    "repair the row, or remove it",
                )
            for role, values in columns.items():
                values += checked.good[role].to_pylist()
            targets += target_values(task, checked.good).to_pylist()
    if not targets:
        raise DataError(f"{paths} has no rows, so no metric is defined", "name a file with labeled rows")
    return with_digest(columns, targets)


def compute_evaluation(
    contract: Contract, rows: LabeledRows, scores: np.ndarray, *, n_bins: int, n_mistakes: int
) -> Evaluation:
    """Return the metrics for the scores of a model with this contract.

    Raises `DataError` for an unknown label and `ModelError` for scores that are not finite.
    """
    check_finite_scores(scores, "the model")
    task = task_of_contract(contract)
    targets = encode_targets(contract, rows)
    previews = _RowPreviews(task, contract, rows)
    return Evaluation(
        metrics=task.target.metrics(scores, targets, n_bins),
        sections=sections_or_reason(
            "Predictions",
            lambda: prediction_sections(
                task.target, contract.fitted, ScoredRows(previews, scores, targets), n_bins, n_mistakes
            ),
        ),
        rows=len(rows),
        rows_digest=rows.digest,
        scores=scores,
    )


def check_finite_scores(scores: np.ndarray, model: str) -> None:
    """Raise `ModelError` naming the first row whose scores are not finite: no metric of them would mean anything."""
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise ModelError(
            f"{model} computes scores that are not finite for {len(bad):,} of {len(scores):,} rows; the first is row "
            f"{bad[0] + 1}, counted over all files",
            "look for extreme values in that row, or train with a lower `train.learning_rate` or in fp32",
        )


class _RowPreviews(Sequence[str]):
    """The rows as a report shows them. Computed on demand: the report shows few rows, and thumbnails take time."""

    def __init__(self, task: Task, contract: Contract, rows: LabeledRows) -> None:
        self._task, self._contract, self._rows = task, contract, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        columns = {role: [values[row]] for role, values in self._rows.columns.items()}
        return self._task.show(self._contract, columns)[0]


def encode_targets(contract: Contract, rows: LabeledRows) -> np.ndarray:
    """Return the targets of rows as the contract encodes them. Raises `DataError` for a target it does not know."""
    task = task_of_contract(contract)
    target = task.target
    raw = pa.array(rows.targets, pa.string())
    encoded = target.encode(contract.fitted, raw)
    if encoded.null_count:
        unseen = sorted({str(value) for value in raw.filter(encoded.is_null()).to_pylist()})
        examples = ", ".join(repr(label) for label in unseen[:5]) + (", ..." if len(unseen) > 5 else "")
        problem = "the model was not trained on" if target.has_labels else "cannot be read"
        raise DataError(
            f"{encoded.null_count} rows have a value of {task.target_role} that {problem}: {examples}",
            "remove these rows, or train a model with them"
            if target.has_labels
            else "remove these rows, or repair them",
        )
    return target.array(contract.fitted, pa.chunked_array([encoded]))
