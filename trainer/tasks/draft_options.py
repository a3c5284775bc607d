"""What a task may override about drafted specs (`raymill init`): the sections besides `data`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from cluster.errors import SpecError


class Doubt(NamedTuple):
    """Something that a draft is unsure of: a sentence with the value, and what to do if it is wrong."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.fix}" if self.fix else self.problem


class DraftFacts(NamedTuple):
    """What is known about the rows when a draft chooses the model."""

    base: str | None = None
    """The base model that the user named, as the spec writes it."""
    image_size: tuple[int, int] | None = None
    """Typical width and height of the images in pixels; None without images."""
    is_gray: bool = False
    """Whether all images that were looked at are gray."""
    roles: tuple[str, ...] = ()
    """The roles that the columns have."""


class DraftedSections(NamedTuple):
    """Sections of a drafted spec, with comments and doubts about them."""

    sections: dict[str, dict[str, Any]]
    """For example `{"model": {"base": ...}}`."""
    comments: Mapping[str, str] = MappingProxyType({})
    """Dotted key, for example `model.base` -> a comment on it."""
    assumed: tuple[str, ...] = ()
    """Sentences."""
    doubts: tuple[Doubt, ...] = ()


class ColumnSample(NamedTuple):
    """A column of a data set, as a task sees it that recognizes its columns by itself."""

    name: str
    kind: str
    """As `trainer.draft.column.Column.kind`: text, category, nested and so on."""
    cells: tuple[str, ...]
    """Some of its cells; lists and objects as JSON text."""


class DraftOptions:
    """Defaults for a task that needs no section but `data`."""

    def recognize(self, columns: Sequence[ColumnSample]) -> dict[str, str] | None:
        """Return role -> column if the columns are clearly this task's; only tasks without a target's column are asked."""
        return None

    def draft(self, facts: DraftFacts) -> DraftedSections:
        """Return the sections of a spec, besides `data`, that a newcomer should start from.

        The default takes the base model that the user named; without one, it writes no section.
        """
        return DraftedSections({"model": {"base": facts.base}} if facts.base else {})


def reject_base(task_name: str, facts: DraftFacts, fix: str) -> None:
    """Raise `SpecError` if the user named a base model for a task that has none."""
    if facts.base:
        raise SpecError(f"--base={facts.base!r} names a base model, and {task_name} has none", fix)
