"""The tasks on tables: columns of mixed kinds, rows as JSON objects, an estimator as the model.

The columns are those of `data.features`; each has a role of its own, `feature.<column>`. The task's `Target` defines
what is predicted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import RequestError
from cluster.files import read_json
from trainer.contract.contract import Contract
from trainer.features.cells import format_cell
from trainer.features.fitted import EncodedTable, FittedFeatures, columns_from_objects, encode_table
from trainer.features.json_cells import json_cells
from trainer.spec.data import ALLOWABLE_ISSUES
from trainer.spec.run import RunSpec
from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers
from trainer.tasks.base import Task
from trainer.tasks.columns import columns_of
from trainer.tasks.draft_options import DraftedSections, DraftFacts, reject_base
from trainer.tasks.encoder import Columns, Encoded, Encoder
from trainer.tasks.estimators.catalog import DEFAULT_KIND, estimator_kinds, get_estimator_class, is_installed
from trainer.tasks.estimators.spec_check import check_table_data, check_table_model
from trainer.tasks.fitting import unfitted_contract
from trainer.tasks.roles import FEATURE, features_of
from trainer.tasks.rows import RowsView

if TYPE_CHECKING:
    import torch

    from trainer.charts.section import ReportSection
    from trainer.tasks.estimators.base import Estimator, FeatureTable


_MAX_SHOWN_LENGTH = 160


class TabularEncoder(Encoder):
    """Turns cells into one float32 vector per row: the values, then the ids (exact, because they are below 2**24)."""

    number_type = pa.float32()

    def __init__(self, fitted: FittedFeatures) -> None:
        self._fitted = fitted

    def __call__(self, columns: Columns) -> Encoded:
        encoded = encode_table(self._fitted, {role.removeprefix(FEATURE): cells for role, cells in columns.items()})
        return Encoded(list(_join(encoded)), _reasons(encoded), encoded.unseen)

    def encode_block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        encoded = encode_table(self._fitted, features_of(rows))
        matrix = _join(encoded)
        offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1))), _reasons(encoded)

    def count_unseen(self, rows: pa.Table) -> dict[str, int]:
        return encode_table(self._fitted, features_of(rows)).unseen


def _join(encoded: EncodedTable) -> np.ndarray:
    """Return values and ids in one float32 matrix."""
    return np.concatenate([encoded.values, encoded.ids.astype(np.float32)], axis=1)


def _reasons(encoded: EncodedTable) -> list[str | None] | None:
    return encoded.reasons if any(encoded.reasons) else None


class TabularTask(Task):
    """Fits an estimator of `trainer.tasks.estimators` to the columns of `data.features`."""

    request = '{"column": value, ...}'
    allowed_issues = frozenset(ALLOWABLE_ISSUES)  # equal rows are common in tables
    used_keys = frozenset({"model.kind", "model.params", "train.batch_size", "train.folds"})
    learns_from_features = True

    # -- rows

    def check_spec(self, spec: RunSpec) -> None:
        columns_of(self, spec)
        check_table_data(spec, self.name)
        check_table_model(spec, classes=self.target.has_classes, task=self.name)

    def make_contract(self, spec: RunSpec, folder: Path) -> Contract:
        kinds = {FEATURE + name: rules.kind for name, rules in spec.data.features.items()}
        return unfitted_contract(self, spec, types=kinds)

    def encoder(self, contract: Contract, folder: Path) -> TabularEncoder:
        return TabularEncoder(fitted_features(contract))

    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        import torch

        table = _table(contract, inputs)
        return {"values": torch.from_numpy(table.values), "ids": torch.from_numpy(table.ids)}

    # -- requests

    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        names = _column_names(contract)
        columns, reasons = columns_from_objects(list(names.values()), inputs)
        for number, reason in enumerate(reasons):
            if reason:
                code = "wrong_columns" if isinstance(inputs[number], Mapping) else "wrong_type"
                raise RequestError(422, code, f"inputs[{number}]: {reason}")
        for name, cells in columns.items():
            for number, cell in enumerate(cells):
                if isinstance(cell, (list, dict)):
                    raise RequestError(
                        422, "wrong_type", f"inputs[{number}]: column '{name}' is {format_cell(cell)}; give one value"
                    )
        return {role: columns[name] for role, name in names.items()}

    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        names = _column_names(contract)
        fitted = {column.name: column for column in fitted_features(contract).columns}
        typed = [json_cells(fitted[name], columns[role]) for role, name in names.items()]
        return [dict(zip(names.values(), row, strict=True)) for row in zip(*typed, strict=True)]

    def example(self, contract: Contract) -> Any:
        return {column.name: _example_cell(column) for column in fitted_features(contract).columns}

    # -- model

    def new_model(self, contract: Contract, spec: RunSpec) -> Estimator:
        from trainer.tasks.estimators.catalog import new_estimator

        return new_estimator(spec)

    def save_model(self, model: Any, contract: Contract, folder: Path) -> None:
        model.save(folder)

    def load_model(self, folder: Path) -> Estimator:
        from trainer.tasks.estimators.catalog import load_estimator

        return load_estimator(folder)

    def to_device(self, model: Any, device: str, threads: int) -> Any:
        return model.to(device, threads)

    def forward(
        self, model: Any, contract: Contract, inputs: list[np.ndarray], batch_size: int, device: str
    ) -> np.ndarray:
        logits: np.ndarray = model.logits(_table(contract, inputs))
        return logits

    # -- drafts

    def draft(self, facts: DraftFacts) -> DraftedSections:
        reject_base(self.name, facts, f"remove --base; {self.name} fits an estimator ({self.models})")
        kinds = estimator_kinds(classes=self.target.has_classes)
        # Linear models need no package of the extra `tabular`.
        kind = DEFAULT_KIND if is_installed(get_estimator_class(DEFAULT_KIND)) else kinds[0]
        others = ", ".join(other for other in kinds if other != kind)
        return DraftedSections({"model": {"kind": kind}}, {"model.kind": f"or: {others}"})

    # -- reporting

    def model_name(self, spec: RunSpec) -> str:
        return spec.model.kind or DEFAULT_KIND

    def show(self, contract: Contract, columns: Columns) -> list[str]:
        names = _column_names(contract)
        texts = [
            ", ".join(f"{name}={'' if cell is None else cell}" for name, cell in zip(names.values(), row, strict=True))
            for row in zip(*[columns[role] for role in names], strict=True)
        ]
        return [text if len(text) <= _MAX_SHOWN_LENGTH else text[:_MAX_SHOWN_LENGTH] + "..." for text in texts]

    def sections(self, contract: Contract, folder: Path) -> list[ReportSection]:
        from trainer.tasks.profile import PROFILE_FILE
        from trainer.tasks.tables.importance_section import importance_sections

        path = folder / PROFILE_FILE
        return importance_sections(read_json(path).get("importance") if path.is_file() else None)

    def profile(self, parts: Mapping[str, RowsView], contract: Contract, model: Any, folder: Path) -> dict[str, Any]:
        from trainer.tasks.estimators.importance import permutation_importance

        rows = parts["test"]
        table = _table(contract, list(rows.matrix()))
        return {"importance": permutation_importance(self.target, contract, model, table, rows.targets)}


class TabularClassification(TabularTask):
    """Predicts the class of a row."""

    name = "tabular-classification"
    roles = {"label": "the class of the row; data.features names the columns it is learned from"}  # noqa: RUF012
    target = Classes()
    models = f"kind: {', '.join(estimator_kinds(classes=True))}"


class TabularRegression(TabularTask):
    """Predicts a number for a row."""

    name = "tabular-regression"
    roles = {"value": "the number of the row; data.features names the columns it is learned from"}  # noqa: RUF012
    target_role = "value"
    target = Numbers()
    models = f"kind: {', '.join(estimator_kinds(classes=False))}"


def fitted_features(contract: Contract) -> FittedFeatures:
    """Return the fitted columns in a table's contract."""
    return FittedFeatures.model_validate(contract.fitted["features"])


def _table(contract: Contract, inputs: list[np.ndarray]) -> FeatureTable:
    from trainer.tasks.estimators.base import FeatureTable

    return FeatureTable.from_matrix(fitted_features(contract), np.stack(inputs))


def _column_names(contract: Contract) -> dict[str, str]:
    """Return role -> the user's name of each column of an input."""
    return {role: name for role, name in contract.columns.items() if role.startswith(FEATURE)}


def _example_cell(column: Any) -> Any:
    """Return a plausible value of a fitted column, for the example of a request."""
    if column.kind == "numeric":
        return float(f"{column.center if column.fill is None else column.fill:.4g}")
    if column.kind == "boolean":
        return True
    if column.kind == "date":
        date_format = column.rules.format
        if date_format:
            return dt.datetime.fromisoformat(column.first).strftime(date_format)
        return column.first[:10]
    return column.categories[0] if column.categories else "a"
