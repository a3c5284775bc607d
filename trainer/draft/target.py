"""Choose the column to predict, by its name, its values and its position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.errors import DataError, suggest
from trainer.draft.column import Column
from trainer.draft.name_hints import is_rating_name, target_hint
from trainer.tasks.draft_options import Doubt

# Points of a candidate: for each degree of its name's hint, for being the last or the first column, for its kind.
_HINT, _LAST, _FIRST = 4.0, 3.0, 1.0
_KIND_POINTS = {"boolean": 1.0, "category": 1.0, "tags": 1.0, "number": 0.5}
# A candidate this close to the best one is mentioned.
_CLOSE = 3.0
# Whole numbers with more values than this are no classes.
_MAX_CLASS_NUMBERS, _CLEARLY_CLASSES = 20, 10


class TargetChoice(NamedTuple):
    """The column to predict."""

    column: Column
    kinds: tuple[str, ...]
    """`Target.kind` of the targets that it can be, the most likely first."""
    assumed: str
    doubts: list[Doubt]
    rivals: tuple[str, ...] = ()
    """Columns that could be the target too; the doubts name them."""


def target_kinds(column: Column) -> tuple[str, ...]:
    """Return the kinds of target (`Target.kind`) that a column can be, the most likely first; () if none."""
    if column.kind in ("boolean", "category"):
        return ("class", "tags") if not column.is_fraction else ()
    if column.kind == "tags":
        return ("tags",) if column.is_list else ("tags", "class")
    if column.kind != "number" or _is_signed_number(column):
        return ()
    if column.is_fraction or not _may_be_classes(column):
        return ("number",)
    is_class = len(column.values) == 2 or target_hint(column.name) >= 2 or len(column.values) <= _CLEARLY_CLASSES
    return ("class", "number") if is_class and not is_rating_name(column.name) else ("number", "class")


def _may_be_classes(column: Column) -> bool:
    is_whole = all(number.is_integer() for number in column.numbers.values())
    return is_whole and len(column.values) <= min(_MAX_CLASS_NUMBERS, column.n_present // 3)


def choose_target(columns: Sequence[Column], name: str | None = None) -> TargetChoice:
    """Return the column to predict: `name`, or the best guess.

    Raises `DataError` if there is no such column, or none that a task can predict.
    """
    if name is not None:
        return _named_target(columns, name)
    ranked = sorted(
        ((_points(columns, column), column) for column in columns if target_kinds(column)),
        key=lambda item: -item[0],
    )
    signed = [column for column in columns if _is_signed_number(column) and target_hint(column.name)]
    likely = max(signed, key=lambda column: _points(columns, column), default=None)
    if likely and (not ranked or _points(columns, likely) > ranked[0][0]):
        raise _signed_error(likely, f"'{likely.name}' seems to be the column to predict")
    if not ranked:
        contents = "; ".join(f"'{column.name}' holds {column.about}" for column in columns[:8])
        raise DataError(
            f"no column can be predicted: {contents or 'there are no columns'}",
            "add a column with a class, a number or tags for each row, or name one with --target",
        )
    (points, best), *others = ranked
    hint = target_hint(best.name)
    why = "by its name" if hint else "because it is the last column" if best is columns[-1] else "by its values"
    close = [column for other, column in others if points - other <= _CLOSE or target_hint(column.name)]
    doubts = _ambiguity(best, close, is_guess=hint == 0) + _number_doubts(best)
    return TargetChoice(best, target_kinds(best), f"The column to predict is '{best.name}', {why}.", doubts,
                        tuple(column.name for column in close[:3]))  # fmt: skip


def _named_target(columns: Sequence[Column], name: str) -> TargetChoice:
    by_name = {column.name: column for column in columns}
    if name not in by_name:
        raise DataError(f"--target={name!r}: there is no such column", suggest(name, by_name))
    column = by_name[name]
    kinds = target_kinds(column) or (("class",) if column.kind == "group" else ())
    if not kinds:
        others = [other.name for other in columns if target_kinds(other)]
        fix = f"name another column ({', '.join(others)})" if others else "name another column"
        if column.kind == "number":
            raise _signed_error(column, f"--target={name!r} cannot be predicted")
        raise DataError(f"--target={name!r} cannot be predicted: it holds {column.about}", fix)
    return TargetChoice(column, kinds, f"The column to predict is '{name}', as --target says.", _number_doubts(column))


def _is_signed_number(column: Column) -> bool:
    return column.kind == "number" and bool(column.rules.get("remove") or column.rules.get("decimal_sign"))


def _signed_error(column: Column, problem: str) -> DataError:
    return DataError(
        f"{problem}, and it holds {column.about}; a target must be plain numbers",
        "write the numbers without other signs, for example 1234.5, or name another column with --target",
    )


def _points(columns: Sequence[Column], column: Column) -> float:
    position = _LAST if column is columns[-1] else _FIRST if column is columns[0] else 0.0
    return _HINT * target_hint(column.name) + position + _KIND_POINTS[column.kind]


def _ambiguity(best: Column, close: list[Column], *, is_guess: bool) -> list[Doubt]:
    if close:
        names = ", ".join(f"'{column.name}'" for column in close[:3])
        return [Doubt(f"{names} could be the column to predict too", f"if so: --target {close[0].name}")]
    if is_guess:
        return [
            Doubt(f"no column is named like a target, so '{best.name}' is a guess", "name another one with --target")
        ]
    return []


def _number_doubts(column: Column) -> list[Doubt]:
    kinds = target_kinds(column)
    if column.is_fraction and _may_be_classes(column):
        return [
            Doubt(
                f"'{column.name}' has {len(column.values)} different numbers with a decimal point, which cannot be classes",
                "if they are classes, save them as whole numbers or as text",
            )
        ]
    if set(kinds) != {"class", "number"} or len(column.values) == 2:
        return []
    chosen, other = ("a class", "regression") if kinds[0] == "class" else ("a number", "classification")
    return [
        Doubt(
            f"'{column.name}' has only {len(column.values)} different numbers and is taken as {chosen}",
            f"if that is wrong, name a {other} task with --task",
        )
    ]
