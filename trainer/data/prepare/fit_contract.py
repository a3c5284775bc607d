"""Fit the contract: first on all usable rows of the training files, then on the final training rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from cluster.errors import DataError
from trainer.contract.contract import Contract
from trainer.data.parts import TRAIN
from trainer.data.prepare.block_maker import BlockStats
from trainer.data.prepare.judge import RowJudge
from trainer.data.prepare.quarantine import check_bad_rows, quarantine_columns, write_quarantine
from trainer.data.prepare.staging import Staging
from trainer.data.prepare.summary import count_by_reason, count_rows_by_class
from trainer.spec.run import RunSpec
from trainer.tasks.catalog import get_task
from trainer.tasks.fitting import fit_target


def fit_on_usable_rows(spec: RunSpec, staging: Staging, stats: list[BlockStats], quarantine_to: Path) -> Contract:
    """Return the contract fitted on the usable rows of the training files."""
    tally: Counter[str] = Counter()
    for block in stats:
        if staging.files[block.source].part == "train":
            tally.update(block.targets)
    task = get_task(spec.task)
    try:
        return fit_target(task, staging.unfitted, tally, spec.data.labels)
    except DataError:
        # Report bad rows first: they may be why too few rows are left.
        no_verdicts = [np.zeros(0, np.uint8)] * len(stats)
        columns = quarantine_columns(task, staging.unfitted)
        quarantine = write_quarantine(staging.folder, stats, no_verdicts, staging.files, columns)
        counts = {"quarantined": count_by_reason(stats), "rows_in_all": sum(block.rows for block in stats)}
        check_bad_rows(counts, spec.data.max_bad_fraction, quarantine, quarantine_to)
        raise


def refit_on_training_rows(spec: RunSpec, staging: Staging, judge: RowJudge) -> Contract:
    """Refit on the final training rows and check all rows again; return the contract.

    A label without a training row is dropped: all of its rows contradict others, or the split holds them out. Its rows
    become bad rows with an unknown label. Streamed training rows are not compared with one another, so their counts do
    not change.
    """
    task = get_task(spec.task)
    while task.target.has_classes:
        train_rows = count_rows_by_class(judge)[:, TRAIN]
        if train_rows.all() or not train_rows.any():
            return judge.facts.contract
        tally = {label: int(count) for label, count in zip(judge.facts.groups, train_rows, strict=True) if count}
        judge.rerun(fit_target(task, staging.unfitted, tally, spec.data.labels))
    if spec.data.mode == "prepared":
        judge.rerun(fit_target(task, staging.unfitted, judge.tally(), spec.data.labels))
    return judge.facts.contract
