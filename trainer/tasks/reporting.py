"""What a task may override about reports, lineage and checks of a registered model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.contract.contract import Contract
from trainer.spec.run import RunSpec
from trainer.tasks.encoder import Columns
from trainer.tasks.rows import RowsView

if TYPE_CHECKING:
    from trainer.charts.section import ReportSection


class Reporting:
    """Defaults for how a task describes its rows and models."""

    def model_name(self, spec: RunSpec) -> str:
        """Return the name of the trained model that lineage and reports show."""
        new = f"new, {spec.model.config.get('model_type')}" if spec.model.config else "the task's own"
        return spec.model.base or new

    def show(self, contract: Contract, columns: Columns) -> list[str]:
        """Return each row's input as a report shows it; return `markupsafe.Markup` for a picture."""
        return [" | ".join(str(value) for value in row) for row in zip(*columns.values(), strict=True)]

    def sections(self, contract: Contract, folder: Path) -> list[ReportSection]:
        """Return report sections about the model in `folder`, in addition to those about its predictions."""
        return []

    def profile(self, parts: Mapping[str, RowsView], contract: Contract, model: Any, folder: Path) -> dict[str, Any]:
        """Return the fields of `profile.json` that describe the inputs of these rows."""
        return {}

    def check_against_library(
        self, contract: Contract, folder: Path, columns: Columns, inputs: list[np.ndarray]
    ) -> str:
        """Compare `inputs` with the inputs that the model's library makes from the same cleaned rows, if it can.

        Returns a sentence that says what was compared. Raises `ModelError` naming the first difference.
        """
        return "not compared: the model's library has no preparation of its own"
