"""What a task may override about its rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from cluster.errors import SpecError
from trainer.models.base_model import locate_base_model
from trainer.models.custom import check_factory
from trainer.spec.run import RunSpec
from trainer.tasks.spec_keys import LANGUAGE_KEYS, OPTIONAL_KEYS

if TYPE_CHECKING:
    from trainer.contract.contract import Contract
    from trainer.targets.base import Target
    from trainer.tasks.encoder import Columns, Encoder


class RowIdentity(NamedTuple):
    """What makes rows the same, one entry per row."""

    keys: np.ndarray
    """uint64: rows with equal keys are in the same part, and are leaks if files put them into two."""
    targets: pa.ChunkedArray
    """string: rows with equal keys and equal targets are duplicates."""


class RowOptions:
    """Defaults for columns, accepted specs and bad rows."""

    name: str
    roles: dict[str, str]
    target: Target

    #: The role to predict; requests do not have it. None: what is learned is part of the other roles (text generation).
    target_role: str | None = "label"
    #: Roles besides the target's that hold answers: requests and files to predict need not have them.
    answer_roles: frozenset[str] = frozenset()
    #: Roles whose cells may be missing.
    optional_roles: frozenset[str] = frozenset()
    #: Roles whose values may be lists and objects; a cell is their JSON text.
    nested_roles: frozenset[str] = frozenset()
    #: Roles that hold texts. The steps in `data.steps` clean them, and `data.max_chars` limits them.
    text_roles: tuple[str, ...] = ()
    #: Roles that hold bytes, in the cell itself or in the file that the cell names.
    binary_roles: frozenset[str] = frozenset()
    #: Problems between rows (as in `data.allow_issues`) that the task always allows.
    allowed_issues: frozenset[str] = frozenset()
    #: The keys in `OPTIONAL_KEYS` that the task uses, besides those of its target; a spec that sets others is refused.
    used_keys: frozenset[str] = OPTIONAL_KEYS - LANGUAGE_KEYS
    #: Whether inputs are made from `data.features`. Rows are then encoded after the features are fitted.
    learns_from_features = False

    def check_spec(self, spec: RunSpec) -> None:
        """Raise `SpecError` or `ModelError` if the task cannot do what `spec` asks. Reads no rows.

        The default requires that the base model exists and, if `model.factory` is set, that its function exists.
        """
        if spec.model.base is None:
            raise SpecError(
                f"model.base is missing; {self.name} starts from a pre-trained model",
                "set it to a hub id, a folder, or `package://NAME/folder`",
            )
        locate_base_model(spec.model.base)
        check_factory(spec)

    def column_roles(self, renamed: Collection[str]) -> tuple[str, ...]:
        """Return the roles that the columns of a spec have, in order; `renamed` are those that `data.columns` names.

        The default is all `roles`. A task with several layouts of rows returns those of one layout. Raises `SpecError` if
        the named roles belong to none.
        """
        return tuple(self.roles)

    def learned_files(self, spec: RunSpec) -> dict[str, Any] | None:
        """Return the settings of the contract's files that are learned from the training rows; None if none are.

        Equal settings and rows give equal files, so they are made once.
        """
        return None

    def write_learned_files(self, spec: RunSpec, rows: Iterator[pa.Table], folder: Path) -> None:
        """Write the files that `learned_files` announces; `rows` are the training rows, a column for each role.

        `make_contract` is called afterwards with a folder that holds them.
        """

    def split_rows(self, contract: Contract, encoder: Encoder, rows: pa.Table) -> pa.Table:
        """Return raw rows in which long ones are split into several; a part has the number of its row."""
        return rows

    def row_identity(self, contract: Contract, rows: pa.Table) -> RowIdentity | None:
        """Return what makes two rows the same for splits, duplicates and leaks; None: their inputs and their target.

        `rows` has the cleaned columns of usable rows.
        """
        return None

    def comparable_texts(self, contract: Contract, columns: Columns) -> list[str]:
        """Return a text for each row, by which near-duplicates are found."""
        texts = [columns[role] for role in self.text_roles if role in columns]
        return [" ".join(row) for row in zip(*texts, strict=True)]

    def check(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        """Return columns with one text per row: why the row cannot be used, or null for a good row.

        `rows` has one column per role, of strings, or of bytes for `binary_roles`. Rows to predict have no column for
        the target. `trainer.data.prepare.row_checks` checks missing and empty values, lengths and declared labels. The
        default calls the target's `check`.
        """
        if self.target_role is None or self.target_role not in rows.column_names:
            return []
        return self.target.check(self.target_role, rows[self.target_role])

    def max_length(self, contract: Contract) -> int | None:
        """Return the length to which `encoder` truncates inputs, or None if it never truncates."""
        return None
