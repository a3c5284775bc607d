"""Run the checks of preparation on a sample of the rows that a drafted spec names."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from cluster.errors import DataError
from trainer.contract.contract import Contract
from trainer.data.parts import PARTS
from trainer.data.prepare.block_maker import check_features, encode_targets
from trainer.data.prepare.row_checks import RowLimits, check_rows
from trainer.data.prepare.row_identity import identify_rows
from trainer.data.prepare.verdicts import REASONS, compare_rows
from trainer.data.readers.read import read_blocks
from trainer.data.readers.read_options import read_options_of_spec
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.spec_sources import list_source_files
from trainer.spec.run import RunSpec
from trainer.steps.cleaner import Cleaner
from trainer.tasks.base import Task
from trainer.tasks.catalog import get_task
from trainer.tasks.fitting import fit_target, unfitted_contract
from trainer.tasks.roles import target_values
from trainer.tasks.row_options import RowIdentity

# Rows, and bytes of cells or images, that are checked of each part.
_MAX_ROWS, _MAX_BYTES = 50_000, 32 << 20
_QUOTED = re.compile(r"'.*'|\".*\"|'.*$")


class CheckedSample(NamedTuple):
    """What the checks of preparation say about a sample of the rows."""

    n_rows: Counter[str]
    """Rows that were checked, by part."""
    reasons: dict[str, Counter[str]]
    """Part -> reason -> bad rows."""
    targets: Counter[str]
    """Counts of the training rows' targets, as the target's `tally` returns them."""
    is_complete: bool
    """Whether all rows were checked."""

    @property
    def bad_share(self) -> float:
        """Share of bad rows."""
        return sum(sum(counts.values()) for counts in self.reasons.values()) / max(1, sum(self.n_rows.values()))


def check_sample(spec: RunSpec) -> CheckedSample:
    """Read and check the first rows of each file of `spec`, with the code that prepares rows.

    Raises `DataError` if the files cannot be read with the spec's columns, or if nothing can be learned from them.
    """
    task = get_task(spec.task)
    contract = unfitted_contract(task, spec)
    contract = contract.model_copy(update={"fitted": task.target.settings(spec.data)})
    checked = CheckedSample(Counter(), {part: Counter() for part in PARTS}, Counter(), True)
    rows: list[_ComparableRows] = []
    files = list_source_files(spec)
    for file in files:
        n_part_files = sum(other.part == file.part for other in files)
        complete = _check_file(file, spec, task, contract, n_part_files, checked, rows)
        checked = checked._replace(is_complete=checked.is_complete and complete)
    if not rows:
        return checked
    try:
        contract = fit_target(task, contract, checked.targets, spec.data.labels)
    except DataError as error:
        if not checked.is_complete:  # the first rows of a sorted file may have one class
            return checked
        raise DataError(f"{error.problem}{_main_reason(checked)}", error.fix) from error
    _compare(spec, task, contract, rows, checked)
    return checked


def _main_reason(checked: CheckedSample) -> str:
    """Return why most of the bad rows are bad, for the end of a message."""
    counts: Counter[str] = sum(checked.reasons.values(), Counter())
    if not counts:
        return ""
    reason, count = counts.most_common(1)[0]
    return f"; {count:,} of {sum(checked.n_rows.values()):,} rows cannot be used: {reason}"


class _ComparableRows(NamedTuple):
    part: int
    identity: RowIdentity


def _check_file(
    file: SourceFile,
    spec: RunSpec,
    task: Task,
    contract: Contract,
    n_part_files: int,
    checked: CheckedSample,
    rows: list[_ComparableRows],
) -> bool:
    """Add a file's rows to `checked` and `rows`; return whether all of them were read."""
    options = read_options_of_spec(spec, contract)
    limits = RowLimits(spec.data.max_chars, spec.data.labels)
    n_rows = n_bytes = 0
    for block in read_blocks(file, *options):
        checks = check_rows(task, contract, check_features(block, spec.data), Cleaner(contract), limits)
        checked.n_rows[file.part] += len(block)
        checked.reasons[file.part].update(_QUOTED.sub("…", reason) for reason in checks.bad["reason"].to_pylist())
        if len(checks.good):
            if file.part == "train":
                checked.targets.update(task.target.tally(target_values(task, checks.good)))
            rows.append(_ComparableRows(PARTS.index(file.part), identify_rows(checks, task, contract)))
        n_rows += len(block)
        n_bytes += block.nbytes
        if n_rows >= _MAX_ROWS // n_part_files or n_bytes >= _MAX_BYTES // n_part_files:
            return False
    return True


def _compare(
    spec: RunSpec, task: Task, contract: Contract, rows: list[_ComparableRows], checked: CheckedSample
) -> None:
    """Add the problems between rows to `checked`: duplicates, contradictions, leaks, labels that training lacks."""
    if not rows:
        return
    allowed = {REASONS.index(name) for name in {*spec.data.allow_issues, *task.allowed_issues}}
    keys = np.concatenate([block.identity.keys for block in rows])
    parts = np.concatenate([np.full(len(block.identity.keys), block.part, np.int8) for block in rows])
    targets = [block.identity.targets.dictionary_encode() for block in rows]
    codes = np.concatenate([encode_targets(task, contract, values).codes for values in targets])
    order = np.lexsort((codes, parts, keys))
    verdicts = compare_rows(keys[order], parts[order], codes[order], allowed)
    for part, name in enumerate(PARTS):
        for verdict, count in Counter(verdicts[parts[order] == part].tolist()).items():
            if verdict:
                checked.reasons[name][REASONS[verdict]] += count
