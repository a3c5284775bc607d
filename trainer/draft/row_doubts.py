"""Doubts about rows: unreadable and bad ones, rare classes, columns that suggest a split by time or group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from trainer.draft.bad_rows import CheckedSample
from trainer.draft.column import FEW_ROWS, Column
from trainer.draft.sample import Sample
from trainer.draft.yaml_text import flow_text
from trainer.features.cells import format_cell
from trainer.tasks.base import Task
from trainer.tasks.draft_options import Doubt

_MAX_REASONS = 6
# A class should have this many training rows at least.
_MIN_CLASS_ROWS = 2
_IMBALANCE = 20


class SplitHint(NamedTuple):
    """A split that the columns suggest: a line for the spec, and the doubt."""

    line: str
    doubt: Doubt


def sample_doubts(sample: Sample, columns: Sequence[Column]) -> list[Doubt]:
    """Return the doubts about how the files were read."""
    doubts = []
    if not sample.is_complete:
        doubts.append(
            Doubt(
                f"only the first {len(sample.rows):,} of about {sample.n_rows:,} rows were looked at",
                "check that later rows hold the same kinds of values",
            )
        )
    for name in sample.repeated:
        doubts.append(Doubt(f"column '{name}' is in the file more than once and is left out", "rename its columns"))
    for column in columns:
        if column.kind == "part":
            doubts.append(
                Doubt(
                    f"column '{column.name}' names the part of each row, and a spec names a file for each part",
                    "write the rows of each part into a file of their own (data_train.csv, data_test.csv), and run "
                    "init on the first",
                )
            )
    if sample.n_rows < FEW_ROWS * 2:
        doubts.append(Doubt(f"there are only {sample.n_rows} rows", "metrics on so few held-out rows say little"))
    return doubts


def checked_doubts(checked: CheckedSample, task: Task, target: str) -> list[Doubt]:
    """Return the doubts about bad rows and about the classes."""
    doubts = []
    for part, counts in checked.reasons.items():
        n_rows = checked.n_rows[part]
        for reason, count in counts.most_common(_MAX_REASONS):
            problem = f"{count:,} of {n_rows:,} {part} rows ({count / n_rows:.1%}) cannot be used: {reason}"
            doubts.append(Doubt(problem, _fix(reason, task)))
    return doubts + (_class_doubts(checked.targets, target) if task.target.has_classes else [])


_FIXES = {
    "duplicate": "one of the equal rows is used; to use all, set `data.allow_issues: [duplicate]`",
    "contradicting labels": "equal inputs have different labels, and none of them is used; correct the labels",
    "also in train": "rows of the training file must not be in the test file; remove them there",
    "also in validation": "rows of the validation file must not be in the test file; remove them there",
    "wrong number of cells": "quote the cells that hold commas or line breaks",
}


def _fix(reason: str, task: Task) -> str:
    if reason in (f"empty {task.target_role}", f"missing {task.target_role}") and task.target.has_classes:
        return "if an empty cell is a class of its own, write a word into it"
    return _FIXES.get(reason, "repair these rows; the run lists them in its quarantine file")


def _class_doubts(classes: Counter[str], target: str) -> list[Doubt]:
    doubts = []
    rare = sorted(name for name, count in classes.items() if count < _MIN_CLASS_ROWS)
    if rare:
        names = ", ".join(format_cell(name) for name in rare[:3]) + (", ..." if len(rare) > 3 else "")
        doubts.append(
            Doubt(
                f"{len(rare)} of {len(classes)} classes have fewer than {_MIN_CLASS_ROWS} rows: {names}",
                "add rows of these classes, or join them into one",
            )
        )
    by_spelling: dict[str, list[str]] = {}
    for name in sorted(classes):
        by_spelling.setdefault("".join(filter(str.isalnum, name.lower())) or name, []).append(name)
    alike = next((names for names in by_spelling.values() if len(names) > 1), None)
    if alike:
        names = " and ".join(format_cell(name) for name in alike[:2])
        doubts.append(
            Doubt(f"the classes {names} are nearly the same word", "if they are one class, write it in one way")
        )
    counts = classes.most_common()
    if len(counts) > 1 and counts[0][1] > _IMBALANCE * counts[-1][1] and not rare:
        doubts.append(
            Doubt(
                f"the classes of '{target}' are uneven: {counts[0][1]:,} rows of {format_cell(counts[0][0])}, "
                f"{counts[-1][1]:,} of {format_cell(counts[-1][0])}",
                "if rare classes matter, add `steps: [{balance: {method: weight}}]` to `data`",
            )
        )
    return doubts


def split_hints(columns: Sequence[Column], target: str) -> list[SplitHint]:
    """Return the splits by time and by group that the columns suggest."""
    others = [column for column in columns if column.name != target]
    dates = [
        column.name
        for column in others
        if column.kind == "date" and len(column.values) > FEW_ROWS and not column.rules and not column.n_missing
    ]
    groups = [
        column.name
        for column in others
        if column.kind == "group" and column.n_present >= 1.5 * len(column.values) and not column.n_missing
    ]
    hints = []
    if dates:
        doubt = Doubt(
            f"{_names(dates)} holds dates, and the split does not look at them",
            "if the model is to predict later rows, use the split by time that stands in the file as a comment",
        )
        hints.append(SplitHint(_split_line("time", dates[0]), doubt))
    if groups:
        doubt = Doubt(
            f"rows with the same {_names(groups)} may be in several parts, which flatters the metrics",
            "to keep them together, use the split by group that stands in the file as a comment",
        )
        hints.append(SplitHint(_split_line("group", groups[0]), doubt))
    return hints


def _names(columns: list[str]) -> str:
    return " or ".join(repr(name) for name in columns[:3])


def _split_line(by: str, column: str) -> str:
    return f"split: {flow_text({'by': by, 'column': column})}"
