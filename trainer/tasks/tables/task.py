"""What tasks on tables share: columns of mixed kinds, rows as JSON objects, an estimator as the model.

The columns are `data.features`; each is a role of its own, `feature.<column>`. What is predicted is the task's `Target`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from cluster.errors import RequestError, SpecError
from cluster.files import read_json
from trainer.contract.contract import Contract
from trainer.features.cells import shown
from trainer.features.fitted import Fitted, encode, gather
from trainer.spec.data import ALLOWED
from trainer.spec.run import RunSpec
from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers
from trainer.tasks.base import Task, resolve_columns
from trainer.tasks.encoder import Columns, Encoded, Encoder
from trainer.tasks.estimators import catalog as estimator_catalog
from trainer.tasks.estimators import spec_check
from trainer.tasks.roles import FEATURE, features_of
from trainer.tasks.rows import Rows

if TYPE_CHECKING:
    import torch

    from trainer.charts.section import Section
    from trainer.tasks.estimators.base import Estimator


_LONGEST_SHOWN = 160


class TabularEncoder(Encoder):
    """Cells to one float32 vector a row: the values, then the ids (below 2**24, so exact)."""

    number = pa.float32()

    def __init__(self, fitted: Fitted) -> None:
        self._fitted = fitted

    def __call__(self, columns: Columns) -> Encoded:
        matrix, reasons = self._matrix({role.removeprefix(FEATURE): cells for role, cells in columns.items()})
        return Encoded(list(matrix), reasons)

    def block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        matrix, reasons = self._matrix(features_of(rows))
        offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1))), reasons

    def _matrix(self, rows: Any) -> tuple[np.ndarray, list[str | None] | None]:
        found = encode(self._fitted, rows)
        matrix = np.concatenate([found.values, found.ids.astype(np.float32)], axis=1)
        return matrix, found.reasons if any(found.reasons) else None


class TabularTask(Task):
    """Fits an estimator of `trainer.estimators` on the columns of `data.features`."""

    request = '{"column": value, ...}'
    allows = frozenset(ALLOWED)  # rows of a table are often alike
    uses = frozenset({"model.kind", "model.params", "train.folds"})
    own_defaults = frozenset({"train.learning_rate"})  # that of fine-tuning is too low for a new network
    learns_from_features = True

    # -- rows

    def columns(self, spec: RunSpec) -> dict[str, str]:
        found = resolve_columns(self, spec.data.columns)
        column = found[self.target_role]
        if not spec.data.features:
            raise SpecError(
                f"data.features is empty; {self.name} learns from the columns it names",
                "name them with their kinds, as features: {age: numeric, country: categorical}",
            )
        if column in spec.data.features:
            raise SpecError(
                f"data.features names '{column}', which is the column to be predicted",
                f"take it out of data.features, or name another column in data.columns.{self.target_role}",
            )
        return {**found, **{FEATURE + name: name for name in spec.data.features}}

    def check_spec(self, spec: RunSpec) -> None:
        """Raise `SpecError` or `ModelError` for what cannot be done with a table; reads no rows."""
        self.columns(spec)
        spec_check.data(spec, self.name)
        spec_check.model(spec, classes=self.target.has_classes, task=self.name)

    def model_name(self, spec: RunSpec) -> str:
        return spec.model.kind or estimator_catalog.DEFAULT

    def begin(self, spec: RunSpec, folder: Path) -> Contract:
        features = spec.data.features
        kinds = {FEATURE + name: rules.kind for name, rules in features.items()}
        return Contract(
            task=spec.task,
            columns=self.columns(spec),
            types={**kinds, self.target_role: self.target.kind},
            steps=[],
            fitted={},
            files={},
        )

    def encoder(self, contract: Contract, folder: Path) -> TabularEncoder:
        return TabularEncoder(fitted_of(contract))

    # -- requests

    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        names = _names(contract)
        found, reasons = gather(list(names.values()), inputs)
        for place, reason in enumerate(reasons):
            if reason:
                code = "wrong_columns" if isinstance(inputs[place], Mapping) else "wrong_type"
                raise RequestError(422, code, f"inputs[{place}]: {reason}")
        for name, cells in found.items():
            for place, cell in enumerate(cells):
                if isinstance(cell, (list, dict)):
                    raise RequestError(
                        422, "wrong_type", f"inputs[{place}]: column '{name}' is {shown(cell)}; give one value"
                    )
        return {role: found[name] for role, name in names.items()}

    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        names = _names(contract)
        rows = zip(*[columns[role] for role in names], strict=True)
        return [dict(zip(names.values(), row, strict=True)) for row in rows]

    def example(self, contract: Contract) -> Any:
        return {column.name: _plausible(column) for column in fitted_of(contract).columns}

    def show(self, contract: Contract, columns: Columns) -> list[str]:
        rows = [", ".join(f"{name}={_cell(value)}" for name, value in row.items())
                for row in self.as_request(contract, columns)]  # fmt: skip
        return [text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..." for text in rows]

    # -- model

    def new_model(self, contract: Contract, spec: RunSpec) -> Estimator:
        from trainer.tasks.estimators.catalog import new

        return new(spec)

    def load_model(self, folder: Path) -> Estimator:
        from trainer.tasks.estimators.catalog import load

        return load(folder)

    def save_model(self, model: Any, contract: Contract, folder: Path) -> None:
        model.save(folder)

    def to_device(self, model: Any, device: str, threads: int) -> Any:
        return model.to(device, threads)

    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        import torch

        table = _table(contract, inputs)
        return {"values": torch.from_numpy(table.values), "ids": torch.from_numpy(table.ids)}

    def forward(
        self, model: Any, contract: Contract, inputs: list[np.ndarray], batch_size: int, device: str
    ) -> np.ndarray:
        found: np.ndarray = model.logits(_table(contract, inputs))
        return found

    def backend(self, spec: RunSpec) -> Literal["torch", "xgboost", "none"]:
        return estimator_catalog.get(spec.model.kind or estimator_catalog.DEFAULT).backend

    def profile(self, parts: Mapping[str, Rows], contract: Contract, model: Any, folder: Path) -> dict[str, Any]:
        from trainer.tasks.estimators.importance import importance

        rows = parts["test"]
        table = _table(contract, list(rows.matrix()))
        return {"importance": importance(self.target, contract, model, table, rows.targets)}

    def sections(self, contract: Contract, folder: Path) -> list[Section]:
        from trainer.tasks.profile import FILE
        from trainer.tasks.tables import importance_section

        path = folder / FILE
        return importance_section.sections(read_json(path).get("importance") if path.is_file() else None)


def fitted_of(contract: Contract) -> Fitted:
    """Return the fitted columns of a table's contract."""
    return Fitted.model_validate(contract.fitted["features"])


def _table(contract: Contract, inputs: list[np.ndarray]) -> Any:
    from trainer.tasks.estimators.base import Table

    return Table.of(fitted_of(contract), np.stack(inputs))


def _names(contract: Contract) -> dict[str, str]:
    """Return role -> the user's name of each column of an input."""
    return {role: name for role, name in contract.columns.items() if role.startswith(FEATURE)}


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _plausible(column: Any) -> Any:
    """Return a value that a request could have in a fitted column."""
    if column.kind == "numeric":
        return float(f"{column.center if column.fill is None else column.fill:.4g}")
    if column.kind == "boolean":
        return True
    if column.kind == "date":
        form = column.rules.format
        return dt.datetime.fromisoformat(column.first).strftime(form) if form else column.first[:10]
    return column.categories[0] if column.categories else "a"


class TabularClassification(TabularTask):
    """A row of a table to its class."""

    name = "tabular-classification"
    roles = {"label": "the class of the row; data.features names the columns it is learned from"}  # noqa: RUF012
    target = Classes()
    models = f"kind: {', '.join(estimator_catalog.known(classes=True))}"


class TabularRegression(TabularTask):
    """A row of a table to a number."""

    name = "tabular-regression"
    roles = {"value": "the number of the row; data.features names the columns it is learned from"}  # noqa: RUF012
    target_role = "value"
    target = Numbers()
    models = f"kind: {', '.join(estimator_catalog.known(classes=False))}"
