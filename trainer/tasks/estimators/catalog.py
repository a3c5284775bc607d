"""Estimators for tables, by the name that `model.kind` gives them. A new one is a file here and a line in `KINDS`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cluster.errors import ModelError, SpecError, nearest
from cluster.files import read_json, sha256
from trainer.spec.run import RunSpec
from trainer.tasks.estimators.base import FILE, Estimator

if TYPE_CHECKING:
    from trainer.tasks.estimators.params import Params


KINDS = {
    "logistic_regression": "linear:LogisticRegression",
    "linear_regression": "linear:LinearRegression",
    "random_forest": "trees:RandomForest",
    "gradient_boosting": "trees:GradientBoosting",
    "xgboost": "xgboost:XGBoost",
    "mlp": "mlp:Mlp",
}


#: Trees boosted on histograms need no scaling, take categories as they are and do well untuned on most tables.
DEFAULT = "gradient_boosting"


def get(kind: str) -> type[Estimator]:
    """Return the class of a kind; raises `SpecError` for one that is not there."""
    if kind not in KINDS:
        raise SpecError(f"model.kind='{kind}' is not known", nearest(kind, KINDS))
    module, _, name = KINDS[kind].partition(":")
    found: type[Estimator] = getattr(importlib.import_module(f"trainer.tasks.estimators.{module}"), name)
    return found


def must_be_installed(kind: type[Estimator]) -> None:
    """Raise `ModelError` where the kind's package is not installed."""
    if kind.needs and importlib.util.find_spec(kind.needs) is None:
        raise ModelError(
            f"model.kind={kind.kind} needs the package {kind.needs}, which is not installed",
            "pip install 'raymill[tabular]'",
        )


def read_params(kind: str, given: dict[str, Any]) -> Params:
    """Return the parameters of `kind` out of `model.params`; those grouped under another kind are held to its rules only.

    Raises `SpecError` for a parameter that the kind does not have or a value outside its bounds.
    """
    groups = {name: value for name, value in given.items() if name in KINDS}
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise SpecError(f"model.params.{name}={group!r} is no section", f"write it as {name}: {{...}}")
        _validated(name, group, f"model.params.{name}")
    plain = {name: value for name, value in given.items() if name not in KINDS}
    return _validated(kind, {**plain, **groups.get(kind, {})}, "model.params")


def _validated(kind: str, given: dict[str, Any], where: str) -> Params:
    section = get(kind).params_type
    for name in given:
        if name not in section.model_fields:
            raise SpecError(
                f"{where}.{name} is not known to {kind}", f"{nearest(name, section.model_fields)}{_owner(name, kind)}"
            )
    try:
        return section.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        rule = first["msg"][0].lower() + first["msg"][1:]
        raise SpecError(f"{where}.{name}={given[name]!r}: {rule}", "change the value") from None


def _owner(name: str, kind: str) -> str:
    """Where another kind has a parameter of this name, say how it is given to that one alone."""
    owners = [other for other in KINDS if other != kind and name in get(other).params_type.model_fields]
    return f"; for {owners[0]} alone it is model.params.{owners[0]}.{name}" if owners else ""


def known(*, classes: bool) -> Iterable[str]:
    """Return the kinds that learn classes, or numbers."""
    return [name for name in KINDS if (get(name).learns_classes if classes else get(name).learns_numbers)]


def load(folder: Path) -> Estimator:
    """Return the estimator that `Estimator.save` wrote. Raises `ModelError` for files that are damaged or no estimator."""

    try:
        about = read_json(folder / FILE)
        kind = get(about["kind"])
        must_be_installed(kind)
        found = kind(kind.params_type.model_validate(about["params"]))
        path = folder / kind.file
        # Before a library sees the file: some end the whole process, or take all memory, over one that is cut short.
        if sha256(path) != about["sha256"]:
            raise ValueError(f"{path.name} was changed: its SHA-256 is not the one in {FILE}")
        found._load(path, about)
    except ModelError:
        raise
    except Exception as error:  # each library has its own kinds for a file that is none of its
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{folder} holds no model that can be read: {type(error).__name__}: {first}",
            "restore the folder, or train again",
        ) from error
    return found


def new(spec: RunSpec) -> Estimator:
    """Return the spec's estimator, not fitted yet. Raises `SpecError` or `ModelError` for one that cannot be made."""
    kind = get(spec.model.kind or DEFAULT)
    must_be_installed(kind)
    return kind(read_params(kind.kind, spec.model.params))
