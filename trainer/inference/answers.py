"""Answers that a model writes to held-out prompts: their statistics for the metrics, and a file to read them.

Letters in shapes: B rows, K statistics of answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.files import write_bytes
from cluster.progress import Progress, ProgressFile
from trainer.spec.answers import AnswersSpec
from trainer.targets.answers.base import Answered
from trainer.targets.answers.catalog import N_STATISTICS, AnswerJudge

if TYPE_CHECKING:
    from trainer.inference.predictor import Predictor

#: Files in a run's folder: the answers of its model, and of the champion to the same prompts.
ANSWERS_FILE, CHAMPION_ANSWERS_FILE = "answers.jsonl", "answers-champion.jsonl"


def judge_answers(
    predictor: Predictor, inputs: Sequence[np.ndarray], spec: AnswersSpec, file: Path | None, log: ProgressFile
) -> np.ndarray:
    """Return the statistics of the model's answers to the prompts of `inputs`, float64, shape (B, K).

    Writes the answers into `file`, one line a row. Rows beyond `spec.max_rows` have zeros.
    """
    judge = AnswerJudge(spec)
    used = list(inputs[: spec.max_rows])
    total = len(used) * spec.samples
    answers = predictor.write_answers(
        used, spec, lambda done: log.update(Progress(done=done, total=total, unit="answers"))
    )
    statistics_BK = np.zeros((len(inputs), N_STATISTICS))
    for row, samples in enumerate(answers):
        statistics_BK[row] = judge.statistics(samples)
    if file is not None:
        lines = "".join(_line(row, samples) for row, samples in enumerate(answers) if samples)
        write_bytes(file, lines.encode())
    return statistics_BK


def read_answers(file: Path) -> dict[int, list[Answered]]:
    """Return the answers in `file` by row; none if there is no such file."""
    if not file.is_file():
        return {}
    answers = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answers[int(row["row"])] = [Answered(row["prompt"], text, row["reference"]) for text in row["answers"]]
    return answers


def _line(row: int, samples: Sequence[Answered]) -> str:
    first = samples[0]
    content = {
        "row": row,
        "prompt": first.prompt,
        "reference": first.reference,
        "answers": [sample.answer for sample in samples],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"
