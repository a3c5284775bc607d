"""Figures of a model on labelled rows: scored in a Ray task, judged in plain functions.

Letters in shapes: B rows, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.errors import DataError, user_error_in
from cluster.progress import Progress, ProgressFile
from trainer import classification_metrics as figures
from trainer import contract as contracts
from trainer import tasks
from trainer.contract import Contract
from trainer.data import sources
from trainer.data.checks import examine
from trainer.data.read import read_blocks
from trainer.steps import Cleaner

_CHUNK_ROWS = 512


@dataclass(frozen=True)
class LabelledRows:
    """Raw rows with their true labels."""

    raw: list[str]
    labels: list[str]
    digest: str
    """Hex digest of the rows' content: two evaluations with the same one are comparable."""


@dataclass(frozen=True)
class Evaluation:
    """What a model does on labelled rows."""

    metrics: dict[str, float]
    by_class: list[dict[str, Any]]
    labels: list[str]
    confusion_CC: np.ndarray
    """int counts: row = true class, column = predicted."""
    calibration: dict[str, Any]
    mistakes: list[dict[str, Any]]
    """The most confident wrong answers, worst first."""
    rows: int
    rows_digest: str
    scores_BC: np.ndarray


def read_labelled(paths: str | list[str], contract: Contract) -> LabelledRows:
    """Return the rows of labelled files; every row must be usable. Raises `DataError` naming the first that is not."""
    from cluster.files import sha256_of

    task = tasks.get(contract.task)
    raw: list[str] = []
    labels: list[str] = []
    cleaner = Cleaner(contract)
    for file in sources.find(paths, "test"):
        for block in read_blocks(file, contract.columns):
            good, _, bad = examine(task, block, cleaner)
            if len(bad):
                first = bad.slice(0, 1).to_pylist()[0]
                raise DataError(
                    f"row {first['row']} of {file.path} cannot be used: {first['reason']}",
                    "repair the row, or take it out",
                )
            raw += good[task.subject].to_pylist()
            labels += good[task.target].to_pylist()
    return LabelledRows(raw, labels, sha256_of(sorted(zip(raw, labels, strict=True))))


def score(
    folder: Path, rows: LabelledRows, *, cpus: float, gpus: float, batch_size: int, progress: Path | None
) -> np.ndarray:
    """Return float64 scores, shape (B, C), of the model in `folder`, computed in a Ray task of that size."""
    import ray

    task = ray.remote(num_cpus=cpus, num_gpus=gpus)(score_here)
    try:
        result: np.ndarray = ray.get(
            task.remote(str(folder), rows.raw, max(1, int(cpus)), gpus > 0, batch_size, progress)
        )
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None
    return result


def score_here(
    folder: str, raw: list[str], threads: int, on_gpu: bool, batch_size: int, progress: Path | None
) -> np.ndarray:
    """Return float64 scores, shape (B, C), computed in this process."""
    from trainer.predictor import Predictor

    predictor = Predictor(Path(folder), device="cuda" if on_gpu else "cpu", threads=threads)
    log = ProgressFile(progress)
    parts = []
    for start in range(0, len(raw), _CHUNK_ROWS):
        parts.append(predictor.scores(predictor.encode(raw[start : start + _CHUNK_ROWS]), batch_size))
        log.update(Progress(done=start + len(parts[-1]), total=len(raw), unit="rows"))
    return np.concatenate(parts)


def judge(contract: Contract, rows: LabelledRows, scores_BC: np.ndarray, *, n_bins: int, n_mistakes: int) -> Evaluation:
    """Return the figures for scores of a model with this contract. Raises `DataError` for a label it never saw."""
    task = tasks.get(contract.task)
    labels: list[str] = contract.fitted["labels"]
    targets_B = task.target_ids(contract, pa.chunked_array([pa.array(rows.labels, pa.string())]))
    unseen = sorted({label for label, target in zip(rows.labels, targets_B, strict=True) if target < 0})
    if unseen:
        shown = ", ".join(repr(label) for label in unseen[:5]) + (", ..." if len(unseen) > 5 else "")
        raise DataError(
            f"{int((targets_B < 0).sum())} rows have a label the model was not trained on: {shown}",
            "take them out, or train with them",
        )
    return Evaluation(
        metrics=task.metrics(scores_BC, targets_B, n_bins),
        by_class=figures.by_class(scores_BC, targets_B, labels),
        labels=labels,
        confusion_CC=figures.confusion(scores_BC, targets_B),
        calibration=figures.calibration(scores_BC, targets_B, n_bins),
        mistakes=_mistakes(rows, scores_BC, targets_B, labels, n_mistakes),
        rows=len(rows.raw),
        rows_digest=rows.digest,
        scores_BC=scores_BC,
    )


def in_labels_of(scores_BC: np.ndarray, theirs: list[str], ours: list[str]) -> np.ndarray:
    """Return the scores of a model with labels `theirs` in the columns of `ours`; a label it lacks scores 0."""
    found = np.zeros((len(scores_BC), len(ours)))
    place = {label: column for column, label in enumerate(theirs)}
    for column, label in enumerate(ours):
        if label in place:
            found[:, column] = scores_BC[:, place[label]]
    return found


def labels_of(folder: Path) -> list[str]:
    """Return the labels of the model in `folder`."""
    found: list[str] = contracts.load(folder).fitted["labels"]
    return found


def _mistakes(
    rows: LabelledRows, scores_BC: np.ndarray, targets_B: np.ndarray, labels: list[str], count: int
) -> list[dict[str, Any]]:
    predicted_B = scores_BC.argmax(axis=1)
    wrong = np.flatnonzero(predicted_B != targets_B)
    worst = wrong[np.argsort(-scores_BC[wrong, predicted_B[wrong]], kind="stable")][:count]
    return [
        {
            "text": rows.raw[at],
            "true": labels[targets_B[at]],
            "predicted": labels[predicted_B[at]],
            "score": float(scores_BC[at, predicted_B[at]]),
            "true_score": float(scores_BC[at, targets_B[at]]),
        }
        for at in worst
    ]
