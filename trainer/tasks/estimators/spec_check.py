"""Checks of a spec for a table, before any row is read."""

from __future__ import annotations

from typing import Any, Literal

from cluster.errors import SpecError
from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.steps.cleaner import dataset_steps
from trainer.tasks.estimators.catalog import (
    DEFAULT_KIND,
    estimator_kinds,
    get_estimator_class,
    read_params,
    require_installed,
)

_PARAMS = "model.params."


def check_table_data(spec: RunSpec, task: str) -> None:
    """Raise `SpecError` for settings of `data` and `train` that do not work for tables."""
    usable = {step.name for step in dataset_steps(spec.data)}
    for step in spec.data.steps:
        if step.name not in usable or (step.deduplicate and step.deduplicate.near):
            raise SpecError(
                f"data.steps has {step.name}{'' if step.name not in usable else ' with near'}, which is for texts; "
                f"{task} has no texts",
                "remove it from `data.steps`; `data.features` defines how cells are read",
            )
        if spec.train.folds and step.balance and step.balance.method != "weight":
            raise SpecError(
                f"train.folds works only with balance: {{method: weight}}, not {step.balance.method}: a repeated row "
                "would count twice in the metrics",
                "set `method: weight`, or remove `train.folds`",
            )
    if spec.train.folds and spec.data.split.by != "content":
        raise SpecError(
            f"train.folds splits rows by their content, but data.split splits by {spec.data.split.by}",
            "remove `train.folds`; `data.split` then selects the validation rows",
        )


def check_table_model(spec: RunSpec, *, classes: bool, task: str) -> None:
    """Raise `SpecError` or `ModelError` if an estimator does not exist or cannot do what the spec asks.

    In a search, every kind of the space is checked, with the `sample_values` of every parameter of the space.
    """
    for key in ("base", "config", "dropout"):
        if getattr(spec.model, key) is not None:
            raise SpecError(
                f"model.{key} is set, but {task} fits an estimator",
                f"remove `model.{key}`; `model.kind` {_kind_hint(classes)}",
            )
    space = spec.tune.space if spec.tune else {}
    searched = space["model.kind"].sample_values if "model.kind" in space else None
    kinds = [str(kind) for kind in searched or [spec.model.kind or DEFAULT_KIND]]
    for kind in kinds:
        _check_kind(kind, spec, classes=classes, task=task)
        _check_params(kind, spec)
    if (
        len(kinds) > 1
        and spec.tune
        and spec.tune.scheduler == "asha"
        and _may_exceed(spec.train.epochs, spec.tune.grace_epochs)
    ):
        raise SpecError(
            "tune.scheduler: asha compares trials after the same number of epochs, which has no meaning across kinds",
            "set `tune.scheduler: none`",
        )


def _check_kind(kind: str, spec: RunSpec, *, classes: bool, task: str) -> None:
    estimator_class = get_estimator_class(kind)
    if not (estimator_class.learns_classes if classes else estimator_class.learns_numbers):
        raise SpecError(f"model.kind={kind} cannot be used by {task}", _kind_hint(classes))
    require_installed(estimator_class)
    if spec.cluster.max_workers > 1 and estimator_class.backend == "none":
        raise SpecError(
            f"cluster.workers={spec.cluster.max_workers}, but model.kind={kind} is fitted by one process",
            "set `cluster.workers: 1` and `cluster.cpus_per_worker`, or use xgboost or mlp",
        )


def _check_params(kind: str, spec: RunSpec) -> None:
    space = spec.tune.space if spec.tune else {}
    read_params(kind, spec.model.params)
    for key, domain in space.items():
        if key.startswith(_PARAMS):
            path = key.removeprefix(_PARAMS).split(".")
            for value in domain.sample_values:
                read_params(kind, _with_value(spec.model.params, path, value))


def _may_exceed(epochs: int | Literal["auto"], limit: int) -> bool:
    """Return whether a training may have more epochs than `limit`; of `auto`, that is not known yet."""
    return epochs == AUTO or epochs > limit


def _with_value(values: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return nested `values` with another value at `path`."""
    if len(path) == 1:
        return {**values, path[0]: value}
    inner = values.get(path[0])
    return {**values, path[0]: _with_value(inner if isinstance(inner, dict) else {}, path[1:], value)}


def _kind_hint(classes: bool) -> str:
    return f"can be {', '.join(estimator_kinds(classes=classes))}"
