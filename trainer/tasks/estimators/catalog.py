"""Estimators for tables, by their name in `model.kind`. To add one, write a file here and a line in `ESTIMATORS`."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cluster.errors import ModelError, SpecError, first_line, suggest
from cluster.files import file_sha256, read_json
from trainer.spec.run import RunSpec
from trainer.tasks.estimators.base import ESTIMATOR_FILE, Estimator

if TYPE_CHECKING:
    from trainer.tasks.estimators.params import Params

ESTIMATORS = {
    "logistic_regression": "linear:LogisticRegression",
    "linear_regression": "linear:LinearRegression",
    "random_forest": "trees:RandomForest",
    "gradient_boosting": "trees:GradientBoosting",
    "xgboost": "xgboost:XGBoost",
    "mlp": "mlp:Mlp",
}

#: Histogram gradient boosting needs no scaling, handles categories directly and does well untuned on most tables.
DEFAULT_KIND = "gradient_boosting"


def get_estimator_class(kind: str) -> type[Estimator]:
    """Return the class of a kind. Raises `SpecError` if there is no such kind."""
    if kind not in ESTIMATORS:
        raise SpecError(f"model.kind='{kind}' is not known", suggest(kind, ESTIMATORS))
    module, _, name = ESTIMATORS[kind].partition(":")
    estimator_class: type[Estimator] = getattr(importlib.import_module(f"trainer.tasks.estimators.{module}"), name)
    return estimator_class


def estimator_kinds(*, classes: bool) -> list[str]:
    """Return the kinds that learn classes, or with `classes=False` those that learn numbers."""
    by_kind = {kind: get_estimator_class(kind) for kind in ESTIMATORS}
    return [kind for kind, cls in by_kind.items() if (cls.learns_classes if classes else cls.learns_numbers)]


def is_installed(estimator_class: type[Estimator]) -> bool:
    """Whether the package that the estimator needs is installed."""
    return not estimator_class.needs or importlib.util.find_spec(estimator_class.needs) is not None


def require_installed(estimator_class: type[Estimator]) -> None:
    """Raise `ModelError` if the estimator's package is not installed."""
    if not is_installed(estimator_class):
        raise ModelError(
            f"model.kind={estimator_class.kind} needs the package {estimator_class.needs}, which is not installed",
            "pip install 'raymill[tabular]'",
        )


def new_estimator(spec: RunSpec) -> Estimator:
    """Return the spec's estimator, not yet fitted. Raises `SpecError` or `ModelError` if it cannot be created."""
    estimator_class = get_estimator_class(spec.model.kind or DEFAULT_KIND)
    require_installed(estimator_class)
    return estimator_class(read_params(estimator_class.kind, spec.model.params))


def load_estimator(folder: Path) -> Estimator:
    """Return the estimator that `Estimator.save` wrote. Raises `ModelError` if a file is missing or damaged."""
    try:
        description = read_json(folder / ESTIMATOR_FILE)
        estimator_class = get_estimator_class(description["kind"])
        require_installed(estimator_class)
        estimator = estimator_class(estimator_class.params_type.model_validate(description["params"]))
        path = folder / estimator_class.weights_file
        # Before a library reads the file: given a truncated file, some libraries end the process or use up all memory.
        if file_sha256(path) != description["sha256"]:
            raise ValueError(f"{path.name} was changed: its SHA-256 is not the one in {ESTIMATOR_FILE}")
        estimator._load(path, description)
    except ModelError:
        raise
    except Exception as error:  # each library has its own errors for a damaged file
        raise ModelError(
            f"{folder} holds no model that can be read: {type(error).__name__}: {first_line(error)}",
            "restore the folder, or train again",
        ) from error
    return estimator


def read_params(kind: str, values: dict[str, Any]) -> Params:
    """Return the parameters of `kind` from `values`, the content of `model.params`.

    Parameters in the group of another kind, for example `xgboost: {...}`, are validated but not returned.
    Raises `SpecError` for a parameter that the kind does not have, or a value outside its bounds.
    """
    groups = {name: value for name, value in values.items() if name in ESTIMATORS}
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise SpecError(f"model.params.{name}={group!r} is not a section", f"write it as `{name}: {{...}}`")
        _validate_params(name, group, f"model.params.{name}")
    plain = {name: value for name, value in values.items() if name not in ESTIMATORS}
    return _validate_params(kind, {**plain, **groups.get(kind, {})}, "model.params")


def given_params(kind: str, values: dict[str, Any]) -> set[str]:
    """Return the names of the parameters of `kind` that `values`, the content of `model.params`, sets."""
    return set(read_params(kind, values).model_fields_set)


def _validate_params(kind: str, values: dict[str, Any], prefix: str) -> Params:
    section = get_estimator_class(kind).params_type
    for name in values:
        if name not in section.model_fields:
            raise SpecError(
                f"{prefix}.{name} is not known to {kind}",
                f"{suggest(name, section.model_fields)}{_other_owner(name, kind)}",
            )
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        rule = first["msg"][0].lower() + first["msg"][1:]
        raise SpecError(f"{prefix}.{name}={values[name]!r}: {rule}", "change the value") from None


def _other_owner(name: str, kind: str) -> str:
    """Return a hint on how to set the parameter for another kind that has it; "" if there is none."""
    owners = [
        other for other in ESTIMATORS if other != kind and name in get_estimator_class(other).params_type.model_fields
    ]
    return f"; for {owners[0]} only, set `model.params.{owners[0]}.{name}`" if owners else ""
