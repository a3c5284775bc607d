"""What a task may override about its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from cluster.errors import SpecError
from trainer.models.base_model import locate_base_model
from trainer.models.custom import check_factory
from trainer.spec.run import RunSpec
from trainer.tasks.spec_keys import OPTIONAL_KEYS

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
    #: Checks of the whole data (`data.allow_issues`) that never apply to these rows.
    allowed_issues: frozenset[str] = frozenset()
    #: The keys in `OPTIONAL_KEYS` that the task uses, besides those of its target; a spec that sets others is refused.
    used_keys: frozenset[str] = OPTIONAL_KEYS
    #: Keys of a spec whose default is the task's own, not the one in `raymill schema`.
    own_defaults: frozenset[str] = frozenset()
    #: Whether inputs are made from `data.features`. These are fitted on the training rows, so encoding waits for them.
    learns_from_features = False

    def check_spec(self, spec: RunSpec) -> None:
        """Raise `SpecError` or `ModelError` if the task cannot do what `spec` asks. Reads no rows.

        The default requires the base model and, if `model.factory` is set, its function.
        """
        if spec.model.base is None:
            raise SpecError(
                f"model.base is missing; {self.name} starts from a pre-trained model",
                "give a hub id, a folder, or package://NAME/folder",
            )
        locate_base_model(spec.model.base)
        check_factory(spec)

    def check(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        """Return columns of reasons why rows cannot be used, null for good rows.

        `rows` has one column per role, of strings, or of bytes for `binary_roles`; files to predict have no target.
        Missing and empty values, lengths and declared labels are checked in `trainer.data.prepare.row_checks`. The
        default is the target's own check.
        """
        if self.target_role not in rows.column_names:
            return []
        return self.target.check(self.target_role, rows[self.target_role])

    def max_length(self, contract: Contract) -> int | None:
        """Return the length to which `encoder` truncates inputs, or None if it never does."""
        return None
