"""What a spec for a table may say, looked at before any row is read."""

from __future__ import annotations

from typing import Any

from cluster.errors import SpecError
from trainer.spec.run import RunSpec
from trainer.steps import cleaner
from trainer.tasks.estimators import catalog as estimator_catalog

_PARAMS = "model.params."


def data(spec: RunSpec, task: str) -> None:
    """Raise `SpecError` for what `data` and `train` cannot mean for a table."""
    on_rows = {step.name for step in cleaner.of_whole(spec.data)}
    for step in spec.data.steps:
        if step.name not in on_rows or (step.deduplicate and step.deduplicate.near):
            raise SpecError(
                f"data.steps has {step.name}{'' if step.name not in on_rows else ' with near'}, which is for texts; "
                f"{task} has none",
                "take it out; how cells are read is said in data.features",
            )
        if spec.train.folds and step.balance and step.balance.how != "weight":
            raise SpecError(
                f"train.folds goes with balance: {{how: weight}} only, not {step.balance.how}: a repeated row would be "
                "judged twice",
                "set how: weight, or leave train.folds out",
            )
    if spec.train.folds and spec.data.split.by != "content":
        raise SpecError(
            f"train.folds deals rows out by their content, not by {spec.data.split.by} as data.split says",
            "leave train.folds out: the validation rows are split by it",
        )


def model(spec: RunSpec, *, classes: bool, task: str) -> None:
    """Raise `SpecError` or `ModelError` for an estimator that is not there or cannot do what the spec asks.

    Of a search every kind is looked at, and the ends of every parameter's range.
    """
    for key in ("base", "config", "dropout"):
        if getattr(spec.model, key) is not None:
            raise SpecError(
                f"model.{key} is given, but {task} fits an estimator", f"take it out; model.kind {_one_of(classes)}"
            )
    space = spec.tune.space if spec.tune else {}
    searched = space["model.kind"].edges if "model.kind" in space else None
    kinds = [str(kind) for kind in searched or [spec.model.kind or estimator_catalog.DEFAULT]]
    for name in kinds:
        kind = estimator_catalog.get(name)
        if not (kind.learns_classes if classes else kind.learns_numbers):
            raise SpecError(f"model.kind={name} cannot be used by {task}", _one_of(classes))
        estimator_catalog.must_be_installed(kind)
        if spec.cluster.most_workers > 1 and kind.backend == "none":
            raise SpecError(
                f"cluster.workers={spec.cluster.most_workers}, but model.kind={name} is fitted by one process",
                "set cluster.workers: 1 with cluster.cpus_per_worker, or use xgboost or mlp",
            )
        given = spec.model.params
        estimator_catalog.read_params(name, given)
        for key, domain in space.items():
            if key.startswith(_PARAMS):
                for value in domain.edges:
                    estimator_catalog.read_params(name, _with(given, key.removeprefix(_PARAMS).split("."), value))
        # An estimator by epochs with the default of 3, which is for fine-tuning, would learn next to nothing.
        if name == "mlp" and "epochs" not in spec.train.model_fields_set and "train.epochs" not in space:
            raise SpecError(
                "train.epochs is missing; model.kind=mlp learns in passes over the rows",
                "give it, as train: {epochs: 50}",
            )
    if len(kinds) > 1 and spec.tune and spec.tune.scheduler == "asha" and spec.train.epochs > spec.tune.grace_epochs:
        raise SpecError(
            "tune.scheduler: asha compares trials after the same number of epochs, which means nothing between kinds",
            "set tune.scheduler: none",
        )


def _with(given: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return nested `given` with one more value."""
    if len(path) == 1:
        return {**given, path[0]: value}
    inner = given.get(path[0])
    return {**given, path[0]: _with(inner if isinstance(inner, dict) else {}, path[1:], value)}


def _one_of(classes: bool) -> str:
    return f"can be {', '.join(estimator_catalog.known(classes=classes))}"
