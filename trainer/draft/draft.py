"""Draft a spec from data alone: look at the rows, guess, check the guess on the rows, and say what was assumed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError
from cluster.paths import expand_home
from trainer.data.parts import PARTS
from trainer.data.sources.row_folder import is_row
from trainer.draft.bad_rows import check_sample
from trainer.draft.builder import SpecBuilder
from trainer.draft.column import Column, describe_column
from trainer.draft.data_section import add_columns, add_sources, add_split, allow_bad_rows
from trainer.draft.images import ImageFacts, look_at_images
from trainer.draft.inputs import TaskChoice, choose_task
from trainer.draft.layout import find_layout
from trainer.draft.recognized import recognize_task
from trainer.draft.row_doubts import checked_doubts, sample_doubts, split_hints
from trainer.draft.sample import Sample, read_sample, reading_sentences
from trainer.draft.target import TargetChoice, choose_target
from trainer.spec.format import FormatSpec
from trainer.spec.run import RunSpec
from trainer.tasks.draft_options import Doubt, DraftFacts

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")
_PART_IN_NAME = re.compile(r"[_-]?(train|training)$")
_GENERIC_NAMES = {"train", "training", "data", "dataset", "images", "texts", "rows", ""}


class SpecDraft(NamedTuple):
    """A drafted spec, and what is behind it."""

    text: str
    """The YAML with comments."""
    spec: RunSpec
    """The same as `load_spec` reads it, with absolute paths."""
    columns: list[dict[str, str]]
    """Each column: `name`; `used_as`, a role, a kind of feature or "left out"; `about`, what it holds, and why it is
    left out."""
    assumed: list[str]
    """Sentences."""
    unsure: list[Doubt]


def draft_spec(
    data: Sequence[str],
    *,
    folder: Path,
    target: str | None = None,
    task: str | None = None,
    base: str | None = None,
    reading: FormatSpec | None = None,
) -> SpecDraft:
    """Return a spec for the files, the glob or the folder `data`; its paths are relative to `folder`, an absolute path.

    `target`, `task` and `base` overrule the guesses; `reading` is how the files are read. Raises `DataError` if no spec
    can be written for the data.
    """
    reading = reading or FormatSpec()
    if reading.kind == "auto" and len(data) == 1 and is_row(data[0], "text") and Path(data[0]).is_file():
        reading = reading.model_copy(update={"kind": "text"})  # one text, which a language model can learn
    layout = find_layout(data, reading.kind)
    sample = read_sample(layout.sources["train"], "train", reading)
    columns = [_describe(sample, index) for index in range(len(sample.columns))]
    choice = None if target else recognize_task(sample, columns, task)
    chosen = None
    if choice is None:
        chosen = _folder_target(columns, target) if sample.is_folder else choose_target(columns, target)
        choice = choose_task(columns, chosen, sample.rows, task)

    builder = SpecBuilder(folder)
    builder.assumed += [*layout.assumed, *reading_sentences(sample)]
    builder.assumed += [*([chosen.assumed] if chosen else []), _task_sentence(choice)]
    builder.unsure += [*(chosen.doubts if chosen else []), *choice.doubts, *sample_doubts(sample, columns)]
    used = [column for column in columns if column.name in {*choice.roles.values(), *choice.features}]
    builder.unsure += [doubt for column in used if chosen for doubt in column.doubts]
    builder.set(("name",), _model_name(layout.sources["train"][0]), "the model's name in the registry")
    meanings = {role: choice.task.roles[role] for role in choice.roles} if chosen is None else choice.task.roles
    builder.set(("task",), choice.task.name, "; ".join(f"{role}: {text}" for role, text in meanings.items()))
    add_sources(builder, layout.sources, sample, choice)
    add_columns(builder, sample, columns, choice)
    classes = Counter(chosen.column.values if chosen else {})
    add_split(builder, sample, classes, has_classes=choice.task.target.has_classes)
    _add_task_sections(builder, sample, choice, base)
    _check_rows(builder, columns, choice, sample)
    header = _header(data, builder)
    return SpecDraft(
        builder.render(header), builder.load(), _column_rows(columns, choice), builder.assumed, builder.unsure
    )


def _describe(sample: Sample, index: int) -> Column:
    column = sample.columns[index]
    if column.holds == "bytes":
        if sample.is_folder:
            return Column(column.name, "image", "a file per row")
        size = look_at_images(sample, column.name).size
        return (
            Column(column.name, "image", f"images of about {size[0]} x {size[1]} pixels")
            if size
            else Column(column.name, "nested", "bytes that are no images")
        )
    if column.holds == "nested":
        return Column(column.name, "nested", "objects, or lists of lists")
    counts = sample.rows[column.name].value_counts()
    cells = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    if sample.is_folder and column.name == "text":
        return Column(column.name, "text", "a file per row", {cell: n for cell, n in cells if cell is not None})
    described = describe_column(column.name, dict(cells), sample.files[0].path, column.is_fraction)
    if column.holds == "lists" and described.kind != "empty":
        return replace(described, kind="tags", rules={}, is_list=True)
    return described


def _folder_target(columns: list[Column], name: str | None) -> TargetChoice:
    """Return the target of a folder: the names of the subfolders. Raises `DataError` if there are fewer than two."""
    label = columns[-1]
    if name not in (None, label.name):
        raise DataError(
            f"--target={name!r}: the rows of a folder have one target, the names of its subfolders",
            "leave out --target",
        )
    if len(label.values) < 2:
        raise DataError(
            f"only {len(label.values)} subfolder holds files of rows, so there is nothing to tell apart",
            "put the files of each class into a subfolder of its own",
        )
    n_classes = f"{len(label.values)} classes" if len(label.values) > 3 else ", ".join(label.values)
    return TargetChoice(label, ("class",), f"The class of a file is the name of its subfolder ({n_classes}).", [])


def _task_sentence(choice: TaskChoice) -> str:
    inputs = [f"'{name}'" for role, name in choice.roles.items() if role != choice.task.target_role]
    if choice.features:
        inputs = [f"{len(choice.features)} columns" if len(choice.features) > 1 else f"'{next(iter(choice.features))}'"]
    kind = {"class": "a class", "tags": "tags", "number": "a number"}.get(choice.task.target.kind, "learned")
    return f"The task is {choice.task.name}: {kind} from {' and '.join(inputs)}."


def _model_name(source: str) -> str:
    """Return a name for the registry from the file's name, or from a folder above it that says more."""
    path = Path(source).absolute()
    stems = [path.name.split(".")[0], *(parent.name for parent in path.parents)]
    for stem in stems:
        name = _PART_IN_NAME.sub("", _NOT_IN_NAMES.sub("_", stem.lower()).strip("_-"))[:63].strip("_-")
        if name not in _GENERIC_NAMES:
            return name
    return "model"


def _add_task_sections(builder: SpecBuilder, sample: Sample, choice: TaskChoice, base: str | None) -> None:
    """Write the sections that the task drafts: `model`, and more of `data`."""
    images = look_at_images(sample, choice.roles["image"]) if "image" in choice.roles else ImageFacts()
    if base is not None and expand_home(base).is_dir():
        relative = builder.relative(base)
        base = relative if relative.startswith(("/", ".")) else f"./{relative}"
    drafted = choice.task.draft(DraftFacts(base, images.size, images.is_gray, tuple(choice.roles)))
    for section, values in drafted.sections.items():
        for key, value in values.items():
            builder.set((section, key), value)
    for dotted, comment in drafted.comments.items():
        builder.comment(tuple(dotted.split("."))[:2], comment)
    builder.assumed += drafted.assumed
    builder.unsure += drafted.doubts


def _check_rows(builder: SpecBuilder, columns: list[Column], choice: TaskChoice, sample: Sample) -> None:
    """Check the rows with the spec as it is, and add what follows from that."""
    target = choice.roles[choice.task.target_role] if choice.task.target_role else ""
    checked = check_sample(builder.load())
    allow_bad_rows(builder, checked, sample.files)
    builder.unsure += checked_doubts(checked, choice.task, target)
    if all(builder.get("data", part) for part in PARTS):
        return
    for hint in split_hints(columns, target):
        builder.add_below(("data",), hint.line)
        builder.unsure.append(hint.doubt)


def _header(data: Sequence[str], builder: SpecBuilder) -> list[str]:
    shown = " ".join(data[:3]) + (" ..." if len(data) > 3 else "")
    lines = [f"Drafted by `raymill init {shown}`. `raymill schema` lists all keys.", "", "Assumed:"]
    lines += [f"- {sentence}" for sentence in builder.assumed]
    if builder.unsure:
        lines += ["", "Unsure:", *(f"- {doubt}." for doubt in builder.unsure)]
    return lines


def _column_rows(columns: list[Column], choice: TaskChoice) -> list[dict[str, str]]:
    used = {name: role for role, name in choice.roles.items()}
    for name, column in choice.features.items():
        used[name] = column.feature if isinstance(column.feature, str) else column.feature["kind"]
    rows = []
    for column in columns:
        reason = choice.unused.get(column.name)
        about = f"{column.about}; {reason}" if reason else column.about
        rows.append({"name": column.name, "used_as": used.get(column.name, "left out"), "about": about})
    return rows
