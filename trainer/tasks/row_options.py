"""What a task may override about its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from cluster.errors import SpecError
from trainer.models.base_model import locate_base_model
from trainer.models.custom import check_factory
from trainer.spec.run import RunSpec
from trainer.tasks.spec_keys import LANGUAGE_KEYS, OPTIONAL_KEYS

if TYPE_CHECKING:
    from trainer.contract.contract import Contract
    from trainer.targets.base import Target


class RowOptions:
    """Defaults for columns, accepted specs and bad rows."""

    name: str
    target: Target

    #: The role to predict; requests do not have it.
    target_role: str = "label"
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

    def check(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        """Return columns with one text per row: why the row cannot be used, or null for a good row.

        `rows` has one column per role, of strings, or of bytes for `binary_roles`. Rows to predict have no column for
        the target. `trainer.data.prepare.row_checks` checks missing and empty values, lengths and declared labels. The
        default calls the target's `check`.
        """
        if self.target_role not in rows.column_names:
            return []
        return self.target.check(self.target_role, rows[self.target_role])

    def max_length(self, contract: Contract) -> int | None:
        """Return the length to which `encoder` truncates inputs, or None if it never truncates."""
        return None
