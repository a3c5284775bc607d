"""Count the used, left out and bad rows of a preparation, for `prepare.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.data.parts import PARTS, TRAIN
from trainer.data.prepare.block_maker import BlockStats
from trainer.data.prepare.judge import RowJudge
from trainer.data.prepare.verdicts import BALANCED, DUPLICATE, NEAR, REASONS, SAMPLED
from trainer.spec.data import DataSpec
from trainer.steps.cleaner import dataset_steps


def summarize_preparation(judge: RowJudge, n_repeated: int) -> dict[str, Any]:
    """Return the counts of a preparation: rows by part and class, bad rows and left out rows by reason."""
    stats = judge.facts.stats
    counts_by_verdict = np.bincount(judge.verdicts, minlength=len(REASONS))
    by_verdict = {REASONS[verdict]: int(n) for verdict, n in enumerate(counts_by_verdict) if verdict and n}
    requested = {REASONS[verdict] for verdict in _requested_verdicts(judge.data)}
    bad = count_by_reason(stats)
    bad.update({reason: count for reason, count in by_verdict.items() if reason not in requested})
    counts_CP = count_rows_by_class(judge)
    if judge.data.mode == "streaming":
        by_verdict[REASONS[SAMPLED]] = sum(block.good - sum(block.rows_by_part.values()) for block in stats)
    by_class = {name: counts_CP[index].tolist() for index, name in enumerate(judge.facts.groups)}
    return {
        "rows": {name: int(counts_CP[:, part].sum()) for part, name in enumerate(PARTS)},
        "rows_in_all": sum(block.rows for block in stats),
        "quarantined": _most_first(bad),
        "left_out": {reason: count for reason, count in by_verdict.items() if reason in requested and count},
        "rows_by_class": by_class if judge.facts.task.target.has_classes else {},
        "class_weights": _class_weights(counts_CP[:, TRAIN], judge.data),
        "repeated": n_repeated,
        "mode": judge.data.mode,
    }


def count_by_reason(stats: list[BlockStats]) -> dict[str, int]:
    """Return the number of rows that failed a check of single rows, by reason, most frequent reason first."""
    bad: Counter[str] = Counter()
    for block in stats:
        bad.update(block.reasons)
    return _most_first(bad)


def count_rows_by_class(judge: RowJudge) -> np.ndarray:
    """Return the number of used rows by class and part, int64, shape (classes, 3), streamed training rows included."""
    counts_CP = judge.counts()
    if judge.data.mode == "streaming":
        streamed: Counter[str] = Counter()
        for block in judge.facts.stats:
            streamed.update(block.train_rows_by_class)
        counts_CP[:, TRAIN] = np.array([streamed[group] for group in judge.facts.groups], np.int64)
    return counts_CP


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _requested_verdicts(data: DataSpec) -> set[int]:
    """Return the verdicts that steps of the spec request: their rows count as left out, not as bad."""
    verdicts = {SAMPLED, BALANCED}
    return verdicts | ({DUPLICATE, NEAR} if any(step.deduplicate for step in dataset_steps(data)) else set())


def _class_weights(train_C: np.ndarray, data: DataSpec) -> list[float] | None:
    """Return the weight of each class, 1 on average over the rows; None without a step `balance: {method: weight}`."""
    if not any(step.balance and step.balance.method == "weight" for step in dataset_steps(data)):
        return None
    n_with_rows = int((train_C > 0).sum())
    return [round(float(train_C.sum() / (max(1, n_with_rows) * max(1, count))), 6) for count in train_C]
