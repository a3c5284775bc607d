"""TODO docstring."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluster.errors import DataError
from trainer.data.parts import PARTS
from trainer.spec.data import ALLOWED, Split
from trainer.tasks.base import Task


def _judge_bad_rows(summary: dict[str, Any], allowed: float, quarantine: Path, quarantine_to: Path) -> None:
    """Keep a copy of the quarantine in the run's folder, and stop the run where it holds too many rows."""
    _copy_quarantine(quarantine, quarantine_to)
    n_bad, n_rows = sum(summary["quarantined"].values()), summary["rows_in_all"]
    if n_bad <= allowed * n_rows:
        return
    counts = ", ".join(f"{reason}: {count}" for reason, count in summary["quarantined"].items())
    first = _first_bad(quarantine, set(summary.get("left_out", ())))
    raise TooManyBadRows(
        f"{n_bad} of {n_rows} rows cannot be used ({counts}), more than data.max_bad_fraction={allowed:g} allows; "
        f"the first is row {first['row']} of {first['path']}",
        _what_to_do(summary["quarantined"], n_rows, quarantine_to),
        summary["quarantined"],
    )


def _what_to_do(by_reason: dict[str, int], n_rows: int, listed: Path) -> str:
    reason, most = next(iter(by_reason.items()))
    if most > n_rows / 2:  # then it is hardly the rows that are wrong
        return f"most rows have the same: {reason}. Check data.format, data.columns, data.labels, data.features and data.steps; the rows are listed in {listed}"
    allowed = [name for name in by_reason if name in ALLOWED]
    allow = f", or allow it: data.allow: [{', '.join(allowed)}]" if allowed else ""
    return f"repair the rows listed in {listed}, or raise data.max_bad_fraction{allow}"


def _copy_quarantine(quarantine: Path, quarantine_to: Path) -> None:
    if quarantine.is_file():
        quarantine_to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(quarantine, quarantine_to)


def _first_bad(quarantine: Path, left_out: set[str]) -> dict[str, Any]:
    """Return the first row that is bad and not just left out by a step."""
    with pq.ParquetFile(quarantine) as file:
        for batch in file.iter_batches(columns=["path", "row", "reason"]):
            for row in batch.to_pylist():
                if row["reason"] not in left_out:
                    found: dict[str, Any] = row
                    return found
    raise AssertionError("bad rows were counted that the quarantine does not list")


class TooManyBadRows(DataError):
    """More rows are bad than the spec allows. `by_reason` counts them."""

    def __init__(self, problem: str, fix: str, by_reason: dict[str, int] | None = None) -> None:
        super().__init__(problem, fix)
        self.by_reason = by_reason or {}


def _refuse_empty_parts(summary: dict[str, Any], how: Split, task: Task) -> None:
    rows = summary["rows"]
    for part in PARTS:
        if not rows[part]:
            fix = "add rows, or check data.steps and data.split"
            if part != "train" and how.by == "time":
                fix = f"set data.split.validation_from and test_from to times that some rows reach, or give data.{part}"
            elif part != "train":
                stratify = " set data.split.stratify," if task.target.has_classes else ""
                fix = f"add rows, raise data.split.{part},{stratify} or give data.{part}"
            raise DataError(f"no row is left for {part}: there are {sum(rows.values())} usable rows in all", fix)
