"""Figures of a model on labelled rows: scored in a Ray task, judged in plain functions.

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

from cluster.errors import DataError, user_error_in
from cluster.files import sha256_of
from cluster.progress import Progress, ProgressFile
from trainer.charts.section import Section
from trainer.contract.contract import Contract
from trainer.data.prepare.row_checks import examine
from trainer.data.readers.read import read_blocks
from trainer.data.readers.reading import reading
from trainer.data.sources import resolve
from trainer.steps.cleaner import Cleaner
from trainer.tasks import catalog as task_catalog
from trainer.tasks.base import Task

if TYPE_CHECKING:
    from trainer.inference.predictor import Predictor

_CHUNK_ROWS = 512


@dataclass(frozen=True)
class LabelledRows:
    """Raw rows with their true targets."""

    columns: dict[str, list[Any]]
    """Role -> raw values of the inputs."""
    targets: list[str | None]
    """Raw values of the target."""
    digest: str
    """Hex digest of the rows' content, in any order: two evaluations with the same one are comparable."""

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Evaluation:
    """What a model does on labelled rows."""

    metrics: dict[str, float]
    sections: list[Section]
    """What the report shows."""
    rows: int
    rows_digest: str
    scores: np.ndarray
    """float64, shape (B, C)"""


def labelled(columns: dict[str, list[Any]], targets: list[str | None]) -> LabelledRows:
    """Return rows with their digest."""
    cells = [[_as_json(value) for value in values] for values in (*columns.values(), targets)]
    rows = sorted(json.dumps(row) for row in zip(*cells, strict=True))
    return LabelledRows(columns, targets, sha256_of([list(columns), rows]))


def _as_json(value: Any) -> Any:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value


def read_labelled(paths: str | list[str], contract: Contract) -> LabelledRows:
    """Return the rows of labelled files; every row must be usable. Raises `DataError` naming the first that is not."""
    task = task_catalog.of(contract)
    columns: dict[str, list[Any]] = {role: [] for role in task.subjects(contract)}
    targets: list[str | None] = []
    cleaner = Cleaner(contract)
    how = reading(task, contract.columns)
    for file in resolve.find(paths, resolve.INPUT):
        for block in read_blocks(file, *how):
            found = examine(task, contract, block, cleaner)
            if len(found.bad):
                first = found.bad.slice(0, 1).to_pylist()[0]
                raise DataError(
                    f"row {first['row']} of {file.path} cannot be used: {first['reason']}",
                    "repair the row, or take it out",
                )
            for role, values in columns.items():
                values += found.good[role].to_pylist()
            targets += found.good[task.target_role].to_pylist()
    return labelled(columns, targets)


def score(
    folder: Path, rows: LabelledRows, *, cpus: float, gpus: float, batch_size: int, progress: Path | None
) -> np.ndarray:
    """Return float64 scores, shape (B, C), of the model in `folder`, computed in a Ray task of that size."""
    import ray

    task = ray.remote(num_cpus=cpus, num_gpus=gpus)(score_here)
    columns = ray.put(rows.columns)
    try:
        result: np.ndarray = ray.get(
            task.remote(str(folder), columns, max(1, int(cpus)), gpus > 0, batch_size, progress)
        )
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None
    return result


def score_here(
    folder: str, columns: dict[str, list[Any]], threads: int, on_gpu: bool, batch_size: int, progress: Path | None
) -> np.ndarray:
    """Return float64 scores, shape (B, C), computed in this process."""
    from trainer.inference.predictor import Predictor

    predictor = Predictor(Path(folder), device="cuda" if on_gpu else "cpu", threads=threads)
    log = ProgressFile(progress)
    n_rows = len(next(iter(columns.values())))
    parts = []
    for start in range(0, n_rows, _CHUNK_ROWS):
        some = {role: values[start : start + _CHUNK_ROWS] for role, values in columns.items()}
        parts.append(predictor.scores(_encoded(predictor, some, start), batch_size))
        log.update(Progress(done=start + len(parts[-1]), total=n_rows, unit="rows"))
    return np.concatenate(parts)


def _encoded(predictor: Predictor, columns: dict[str, list[Any]], start: int) -> list[np.ndarray]:
    """Return the model inputs of the rows to be judged from number `start` on. Raises `DataError` naming a row."""
    found = predictor.prepared(columns)
    for at, reason in enumerate(found.reasons or ()):
        if reason:
            raise DataError(
                f"row {start + at + 1} of the rows to be judged, all files counted on, cannot be used: {reason}",
                "repair the row, or take it out",
            )
    return found.inputs


def judge(contract: Contract, rows: LabelledRows, scores: np.ndarray, *, n_bins: int, n_mistakes: int) -> Evaluation:
    """Return the figures for scores of a model with this contract. Raises `DataError` for a label it never saw."""
    task = task_catalog.of(contract)
    targets = targets_of(contract, rows)
    shown = _Shown(task, contract, rows)
    return Evaluation(
        metrics=task.target.metrics(scores, targets, n_bins),
        sections=task.target.sections(contract.fitted, shown, scores, targets, n_bins, n_mistakes),
        rows=len(rows),
        rows_digest=rows.digest,
        scores=scores,
    )


class _Shown(Sequence[str]):
    """How a report shows each row; made when it is asked for, as only the worst are and pictures take time."""

    def __init__(self, task: Task, contract: Contract, rows: LabelledRows) -> None:
        self._task, self._contract, self._rows = task, contract, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        one = {role: [values[row]] for role, values in self._rows.columns.items()}
        return self._task.show(self._contract, one)[0]


def targets_of(contract: Contract, rows: LabelledRows) -> np.ndarray:
    """Return the targets of rows as the contract knows them. Raises `DataError` for one that it does not know."""
    task = task_catalog.of(contract)
    target = task.target
    raw = pa.array(rows.targets, pa.string())
    encoded = target.encode(contract.fitted, raw)
    if encoded.null_count:
        unseen = sorted({str(value) for value in raw.filter(encoded.is_null()).to_pylist()})
        shown = ", ".join(repr(label) for label in unseen[:5]) + (", ..." if len(unseen) > 5 else "")
        wrong = "the model was not trained on" if target.has_labels else "cannot be read"
        raise DataError(
            f"{encoded.null_count} rows have a value of {task.target_role} that {wrong}: {shown}",
            "take them out, or train with them" if target.has_labels else "take them out, or repair them",
        )
    return target.array(contract.fitted, pa.chunked_array([encoded]))
