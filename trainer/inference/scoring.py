"""The scores of a model on rows, computed in this process or in a Ray task.

Letters in shapes: B rows, C columns of scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cluster.errors import DataError, user_error_in
from cluster.progress import Progress, ProgressFile
from trainer.inference.answers import judge_answers
from trainer.inference.evaluate import LabeledRows
from trainer.spec.answers import AnswersSpec

if TYPE_CHECKING:
    from trainer.inference.predictor import Predictor

_CHUNK_ROWS = 512


class ScoringResources(NamedTuple):
    """Where a model scores rows, and with what."""

    cpus: float
    gpus: float = 0
    with_ray: bool = False
    """Whether a Ray task scores them; if not, this process does."""


class ScoringOptions(NamedTuple):
    """How a model scores rows."""

    batch_size: int
    progress: Path | None = None
    """The file for the progress."""
    answers: AnswersSpec | None = None
    """Answers that the model writes to the rows' prompts; their statistics are further columns of the scores."""
    answers_file: Path | None = None
    """The file for these answers, JSON lines."""


def score_rows(folder: Path, rows: LabeledRows, resources: ScoringResources, options: ScoringOptions) -> np.ndarray:
    """Return float64 scores, shape (B, C), of the model in `folder`."""
    if resources.with_ray:
        return score_remotely(folder, rows, resources, options)
    return score_locally(str(folder), rows.columns, max(1, int(resources.cpus)), resources.gpus > 0, options)


def score_remotely(folder: Path, rows: LabeledRows, resources: ScoringResources, options: ScoringOptions) -> np.ndarray:
    """Return float64 scores, shape (B, C), of the model in `folder`, computed in a Ray task with these resources."""
    import ray

    cpus, gpus = resources.cpus, resources.gpus
    task = ray.remote(num_cpus=cpus, num_gpus=gpus)(score_locally)
    columns = ray.put(rows.columns)
    try:
        result: np.ndarray = ray.get(task.remote(str(folder), columns, max(1, int(cpus)), gpus > 0, options))
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None
    return result


def score_locally(
    folder: str, columns: dict[str, list[Any]], threads: int, on_gpu: bool, options: ScoringOptions
) -> np.ndarray:
    """Return float64 scores, shape (B, C), computed in this process."""
    from trainer.inference.predictor import Predictor

    predictor = Predictor(Path(folder), device="cuda" if on_gpu else "cpu", threads=threads)
    log = ProgressFile(options.progress)
    n_rows = len(next(iter(columns.values())))
    parts, inputs = [], []
    for start in range(0, n_rows, _CHUNK_ROWS):
        chunk = {role: values[start : start + _CHUNK_ROWS] for role, values in columns.items()}
        encoded = _encode_rows(predictor, chunk, start)
        parts.append(predictor.scores(encoded, options.batch_size))
        if options.answers:
            inputs += encoded
        log.update(Progress(done=start + len(parts[-1]), total=n_rows, unit="rows"))
    scores = np.concatenate(parts)
    if options.answers is None:
        return scores
    return np.hstack([scores, judge_answers(predictor, inputs, options.answers, options.answers_file, log)])


def _encode_rows(predictor: Predictor, columns: dict[str, list[Any]], start: int) -> list[np.ndarray]:
    """Return the model inputs of rows; `start` is the index of the first one. Raises `DataError` naming a bad row."""
    encoded = predictor.encode_with_reasons(columns)
    for index, reason in enumerate(encoded.reasons or ()):
        if reason:
            raise DataError(
                f"row {start + index + 1} of the evaluated rows, counted over all files, cannot be used: {reason}",
                "repair the row, or remove it",
            )
    return encoded.inputs
