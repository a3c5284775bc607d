"""Write the section `data` of a drafted spec: sources, columns, features, split, bad rows."""

from __future__ import annotations

import math
from collections import Counter

from cluster.errors import DataError
from trainer.data.parts import PARTS
from trainer.data.readers.evidence import explain_reason
from trainer.data.sources.source_file import SourceFile
from trainer.draft.bad_rows import CheckedSample
from trainer.draft.builder import SpecBuilder
from trainer.draft.column import Column
from trainer.draft.inputs import TaskChoice
from trainer.draft.sample import Sample, read_sample
from trainer.spec.data import DataSpec
from trainer.tasks.draft_options import Doubt

# A part that is split off should have some rows; a small table gets larger parts.
_FEW_ROWS = 300
_LARGER_PART = 0.2
# A class with fewer rows could be absent from a part that is split off at random.
_RARE_CLASS_ROWS = 100
_MAX_BAD_SHARE = 0.9


def add_sources(builder: SpecBuilder, sources: dict[str, list[str]], sample: Sample, choice: TaskChoice) -> None:
    """Write `train`, `validation` and `test`; siblings that cannot be a part become doubts."""
    count = f"{sample.n_rows:,} rows" if sample.is_complete else f"about {sample.n_rows:,} rows"
    for part in PARTS:
        paths = [builder.relative(source) for source in sources.get(part, [])]
        if not paths:
            continue
        problem = None if part == "train" else _part_problem(sources[part], part, sample, choice)
        if problem:
            builder.unsure.append(
                Doubt(
                    f"{', '.join(paths)} does not become the {part} rows: {problem}",
                    f"repair its rows or set `data.{part}`; until then, {part} rows are split off the training rows",
                )
            )
            continue
        builder.set(("data", part), paths if len(paths) > 1 else paths[0], count if part == "train" else "")
    keys = sample.reading.model_dump(mode="json", exclude_defaults=True)
    if keys:
        builder.set(("data", "format"), keys["kind"] if list(keys) == ["kind"] else keys)


def _part_problem(sources: list[str], part: str, train: Sample, choice: TaskChoice) -> str | None:
    """Return why files cannot be a part, or None."""
    if train.is_folder:
        return None
    sample = read_sample(sources, part, train.reading)
    names = {column.name for column in sample.columns}
    absent = [name for name in (*choice.roles.values(), *choice.features) if name not in names]
    if absent:
        return f"it has no column '{absent[0]}'"
    target = choice.roles.get(choice.task.target_role or "")
    if target is None or target not in sample.rows.column_names or choice.task.target.may_be_empty:
        return None
    missing = sample.rows[target].null_count / max(1, len(sample.rows))
    missing_in_training = train.rows[target].null_count / max(1, len(train.rows))
    if missing > (1 + missing_in_training) / 2:
        return f"{missing:.0%} of its rows have no '{target}'"
    return None


def add_columns(builder: SpecBuilder, sample: Sample, columns: list[Column], choice: TaskChoice) -> None:
    """Write `columns` and `features`, and comments on the columns that are left out."""
    by_name = {column.name: column for column in columns}
    # The columns of a task with several layouts choose the layout.
    is_named = choice.task.target_role is None or any(role != name for role, name in choice.roles.items())
    if is_named and (choice.task.target_role is None or not sample.is_folder):
        for role, name in choice.roles.items():
            builder.set(("data", "columns", role), name, by_name[name].about)
    target = by_name.get(choice.roles.get(choice.task.target_role or "", ""))
    if target and target.kind == "tags" and "data.tag_separator" in choice.task.target.used_keys and target.rules:
        builder.set(("data", "tag_separator"), target.rules["tag_separator"])
    for name, column in choice.features.items():
        builder.set(("data", "features", name), column.feature, column.about)
    for name, reason in choice.unused.items():
        section = ("data", "features") if choice.features else ("data",)
        builder.add_below(section, f"{name!r} is left out: {reason} ({by_name[name].about})")


def add_split(builder: SpecBuilder, sample: Sample, classes: Counter[str], *, has_classes: bool) -> None:
    """Write `split` where the default would leave a part with too few rows, or without some class."""
    absent = [part for part in PARTS[1:] if not builder.get("data", part)]
    if not absent:
        return
    builder.assumed.append(
        f"The {' and '.join(absent)} rows are split off the training rows by their content."
        if len(absent) > 1
        else f"The {absent[0]} rows are split off the training rows by their content."
    )
    split: dict[str, object] = {}
    reasons = []
    if sample.n_rows < _FEW_ROWS:
        split.update(dict.fromkeys(absent, _LARGER_PART))
        reasons.append("few rows, so larger parts than the default of 0.1")
    if has_classes and classes and min(classes.values()) < _RARE_CLASS_ROWS:
        split["stratify"] = True
        reasons.append("stratify: every class of 5 rows or more is in all parts")
    if split:
        builder.set(("data", "split"), split, "; ".join(reasons))


def allow_bad_rows(builder: SpecBuilder, checked: CheckedSample, files: list[SourceFile]) -> None:
    """Raise `max_bad_fraction` if the run would stop because of rows that it leaves out.

    Raises `DataError` if nearly all rows of the `files` are bad.
    """
    share, allowed = checked.bad_share, DataSpec.model_fields["max_bad_fraction"].default
    if share > _MAX_BAD_SHARE:
        counts: Counter[str] = sum(checked.reasons.values(), Counter())
        reason = counts.most_common(1)[0][0]
        evidence = next(filter(None, (explain_reason(reason, file.path) for file in files)), "")
        raise DataError(
            f"{share:.0%} of the rows cannot be used ({reason}){evidence}",
            "repair the rows, say how the files are read with --format (for example encoding=cp1252), or name another "
            "column with --target or another task with --task",
        )
    if share > allowed * (1.0 if checked.is_complete else 0.5):
        margin = 1.1 if checked.is_complete else 1.5
        value = min(0.99, math.ceil(share * margin * 100) / 100 + 0.01)
        comment = f"{share:.1%} of the rows are bad and are left out (see above); the default is {allowed:g}"
        builder.set(("data", "max_bad_fraction"), round(value, 2), comment)
