"""Describe one column of a sample: what kind of values it holds, and how they are written."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.text import is_blank
from trainer.data.readers.file_cells import resolve_cell
from trainer.data.sources.part_names import part_of_name
from trainer.data.sources.row_folder import ROW_ENDINGS
from trainer.draft.date_text import read_date_form
from trainer.draft.name_hints import is_id_name, is_part_name
from trainer.draft.number_text import read_number_form
from trainer.features.cells import format_cell
from trainer.spec.data import DataSpec
from trainer.spec.features import MISSING_WORDS, BooleanSpec
from trainer.targets.tag_cells import split_tags
from trainer.tasks.draft_options import Doubt

#: Fewer rows show little about a column.
FEW_ROWS = 20
# From this many words on average, many different values are free text; from two, if nearly all values differ.
_TEXT_WORDS, _SHORT_TEXT_WORDS = 3.0, 1.8
_NEARLY_UNIQUE = 0.9
# Longer texts exceed the default of `data.max_length`.
_LONG_TEXT_WORDS = 150
_MAX_CATEGORIES = 1000
# A column of categories with more values than this gets `min_count`, so that rare ones share one output.
_MANY_CATEGORIES = 50
_MAX_CATEGORY_CHARS = 256
_TAG_SEPARATORS = ("|", ";", ",")
_MAX_TAGS = 500
_MISSING = frozenset(word.lower() for word in MISSING_WORDS)


@dataclass(frozen=True)
class Column:
    """One column: its kind, its values, and what is written into `data.features` if it becomes a feature."""

    name: str
    kind: str
    """empty, constant, boolean, number, date, tags, category, text, id, group, part, image or nested.

    `group`: ids that repeat. `part`: the words train, validation, test. `image`: bytes or paths of images.
    """
    about: str
    """What it holds, in a few words."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Value -> rows, without missing ones."""
    n_missing: int = 0
    rules: dict[str, Any] = field(default_factory=dict)
    """Keys of the feature besides `kind`."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Kind number: value -> number."""
    words: float = 0.0
    """Words of a value, on average."""
    is_fraction: bool = False
    """Whether the file stores floating-point numbers."""
    doubts: tuple[Doubt, ...] = ()
    is_list: bool = False
    """Whether the file stores lists, so that a cell cannot be one class."""

    @property
    def n_present(self) -> int:
        """Rows with a value."""
        return sum(self.values.values())

    @property
    def feature(self) -> str | dict[str, Any]:
        """The column in `data.features`."""
        kind = {"number": "numeric", "boolean": "boolean", "date": "date"}.get(self.kind, "categorical")
        return {"kind": kind, **self.rules} if self.rules else kind


def describe_column(name: str, cells: Mapping[str | None, int], file: str = "", is_fraction: bool = False) -> Column:
    """Return what a column holds, given its cells (cell -> rows; None is an empty cell).

    Paths of images are relative to the folder of `file`.
    """
    values = {cell: count for cell, count in cells.items() if cell is not None and not _is_missing(cell)}
    n_missing = sum(cells.values()) - sum(values.values())
    column = _describe(name, values, file)
    # "NA" in a column of words may be Namibia.
    if column.kind in ("category", "text", "id", "tags"):
        values = {cell: count for cell, count in cells.items() if cell is not None and not is_blank(cell)}
        n_missing = sum(cells.values()) - sum(values.values())
    what = "without tags" if column.kind == "tags" else "missing"
    about = f"{column.about}; {n_missing:,} {what}" if n_missing and column.kind != "empty" else column.about
    return Column(
        name, column.kind, about, values, n_missing, column.rules, column.numbers, column.words, is_fraction,
        column.doubts,
    )  # fmt: skip


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING or is_blank(cell)


def _describe(name: str, values: dict[str, int], file: str) -> Column:
    if not values:
        return Column(name, "empty", "no value at all")
    if len(values) == 1:
        return Column(name, "constant", f"always {format_cell(next(iter(values)))}", values)
    if {value.strip().lower() for value in values} <= _boolean_words() and _is_yes_and_no(values):
        return Column(name, "boolean", f"yes and no: {_shown(values, 4)}", values)
    if is_part_name(name) and all(part_of_name(value) for value in values):
        return Column(name, "part", f"the part of each row: {_shown(values, 3)}", values)
    if _are_image_paths(values, file):
        return Column(name, "image", f"paths of images, for example {_example(values)}", values)
    return _number(name, values) or _date(name, values) or _tags(name, values) or _words(name, values)


def _boolean_words() -> set[str]:
    rules = BooleanSpec()
    return {*rules.true_words, *rules.false_words}


def _is_yes_and_no(values: Mapping[str, int]) -> bool:
    rules = BooleanSpec()
    words = {value.strip().lower() for value in values}
    return bool(words & set(rules.true_words)) and bool(words & set(rules.false_words))


def _are_image_paths(values: Mapping[str, int], file: str) -> bool:
    paths = [value for value in values if value.lower().endswith(ROW_ENDINGS["images"])]
    return len(paths) == len(values) and Path(resolve_cell(paths[0], file)).is_file()


def _number(name: str, values: dict[str, int]) -> Column | None:
    form = read_number_form(values)
    if form is None:
        return None
    n_rows = sum(form_count for cell, form_count in values.items() if cell in form.numbers)
    numbers = list(form.numbers.values())
    is_whole = all(number.is_integer() for number in numbers)
    if is_whole and _are_ids(name, numbers, n_rows):
        return Column(name, "id", f"a number for each row, for example {_example(values)}", values)
    if is_whole and is_id_name(name) and len(numbers) > FEW_ROWS:
        return Column(name, "group", f"{len(numbers):,} different ids, for example {_example(values)}", values)
    about = f"{'whole ' if is_whole else ''}numbers, {min(numbers):g} to {max(numbers):g}"
    if form.rules.get("remove"):
        about += f", written like {_example(form.numbers)}"
    doubts = []
    if form.words:
        words = ", ".join(format_cell(word) for word in form.words)
        doubts.append(
            Doubt(
                f"column '{name}': {words} in {sum(values[word] for word in form.words):,} rows is not a number and is "
                "read as missing",
                f"repair these cells, or write `{name}: categorical`",
            )
        )
    if form.rules.get("decimal_sign") and all(number < 1000 for number in numbers):
        doubts.append(
            Doubt(
                f"column '{name}': the comma in {_example(form.numbers)} is read as the decimal sign",
                'if it separates thousands, write `remove: [","]` instead',
            )
        )
    if any(number in numbers for number in (-999, -9999, 99999)) and max(numbers) != 99999:
        doubts.append(
            Doubt(
                f"column '{name}': -999 or a similar number may stand for a missing value",
                'if so, write `missing_words: ["-999"]`',
            )
        )
    return Column(name, "number", about, values, rules=form.rules, numbers=form.numbers, doubts=tuple(doubts))


def _are_ids(name: str, numbers: list[float], n_rows: int) -> bool:
    """Whether whole numbers identify rows: nearly all differ, and their name or their sequence says so."""
    if len(numbers) < max(2, _NEARLY_UNIQUE * n_rows):
        return False
    is_sequence = len(numbers) >= FEW_ROWS and max(numbers) - min(numbers) == len(numbers) - 1
    return is_id_name(name) or is_sequence


def _date(name: str, values: dict[str, int]) -> Column | None:
    form = read_date_form(values)
    if form is None:
        return None
    by_time = sorted(form.moments, key=form.moments.__getitem__)
    about = f"dates, {format_cell(by_time[0])} to {format_cell(by_time[-1])}"
    doubts = []
    if form.words:
        words = ", ".join(format_cell(word) for word in form.words)
        doubts.append(Doubt(f"column '{name}': {words} is not a date and is read as missing", "repair these cells"))
    if form.other_format:
        doubts.append(
            Doubt(
                f"column '{name}': dates such as {_example(form.moments)} are read as {form.rules['format']}",
                f'if the other number is the day, write `format: "{form.other_format}"`',
            )
        )
    return Column(name, "date", about, values, rules=form.rules, doubts=tuple(doubts))


def _tags(name: str, values: dict[str, int]) -> Column | None:
    """Return the column if its cells are lists: JSON, or a few words that repeat in many combinations."""
    for separator in _TAG_SEPARATORS:
        n_several = sum(count for value, count in values.items() if separator in value or value.startswith("["))
        if n_several < 0.1 * sum(values.values()):
            continue
        try:
            tags: Counter[str] = Counter()
            for value, count in values.items():
                # A comma is in many texts, so each different cell counts once.
                tags.update(dict.fromkeys(split_tags(value, separator), count if separator == "|" else 1))
        except (ValueError, RecursionError):
            continue
        is_short = all(tag and len(tag) <= 40 for tag in tags)
        n_uses = sum(tags.values())
        if is_short and 2 <= len(tags) <= min(_MAX_TAGS, max(3, len(values))) and n_uses >= 2 * len(tags):
            if separator == "," and any(len(tag.split()) > 3 for tag in tags):
                continue  # sentences with commas
            rules = {} if separator == "|" else {"tag_separator": separator}
            return Column(name, "tags", f"{len(tags)} tags: {_shown(tags, 3)}", values, rules=rules)
    return None


def _words(name: str, values: dict[str, int]) -> Column:
    n_rows = sum(values.values())
    n_words = statistics.fmean(len(value.split()) for value in values)
    ratio = len(values) / n_rows
    is_long = n_words >= _TEXT_WORDS and ratio > 0.3
    is_short_text = n_words >= _SHORT_TEXT_WORDS and ratio >= _NEARLY_UNIQUE and n_rows >= FEW_ROWS
    too_long = max(map(len, values)) > _MAX_CATEGORY_CHARS
    if is_long or is_short_text or too_long:
        about = f"free text, {n_words:.0f} words on average, for example {_example(values)}"
        doubts = []
        if n_words > _LONG_TEXT_WORDS:
            problem = f"the texts in '{name}' have {n_words:.0f} words on average, and the model reads {DataSpec.model_fields['max_length'].default} tokens"
            doubts.append(Doubt(problem, "to read more, set `data.max_length`, at most to what the base model allows"))
        return Column(name, "text", about, values, words=n_words, doubts=tuple(doubts))
    is_unique = ratio >= _NEARLY_UNIQUE and n_rows >= FEW_ROWS
    if is_unique or (is_id_name(name) and ratio == 1.0):
        about = f"{len(values):,} different values in {n_rows:,} rows, for example {_example(values)}"
        return Column(name, "id", about, values, words=n_words)
    if (is_id_name(name) and len(values) > FEW_ROWS) or len(values) > _MAX_CATEGORIES:
        about = f"{len(values):,} different values that repeat, for example {_example(values)}"
        return Column(name, "group", about, values, words=n_words)
    rules = {"min_count": 5} if len(values) > _MANY_CATEGORIES else {}
    about = f"{len(values)} categories: {_shown(values, 3)}"
    return Column(name, "category", about, values, rules=rules, words=n_words)


def _shown(values: Mapping[str, int], limit: int) -> str:
    """Return the most frequent values, as messages show them."""
    frequent = sorted(values, key=lambda value: (-values[value], value))
    return ", ".join(format_cell(value) for value in frequent[:limit]) + (", ..." if len(frequent) > limit else "")


def _example(values: Mapping[str, Any]) -> str:
    return format_cell(next(iter(values)))
