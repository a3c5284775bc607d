"""TODO docstring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cluster.errors import SpecError, nearest
from trainer.contract import user_code
from trainer.spec.explain import _explain
from trainer.spec.parse import _absolute, _apply, _check_space, _fill_variables, _put, _read
from trainer.spec.run import LOWER_IS_BETTER, RunSpec
from trainer.spec.train import Loss
from trainer.spec.tune import SERVE_FIGURES, TRIAL_FIGURES
from trainer.targets.base import Target

if TYPE_CHECKING:
    from trainer.tasks.base import Task


def load(source: str | Path | RunSpec | Mapping[str, Any], overrides: Iterable[str] = ()) -> RunSpec:
    """Return the spec of a YAML file, a mapping or a `RunSpec`, after the overrides (`"train.epochs=1"`).

    Paths of a file are relative to that file, those of a mapping to the working directory.
    Raises `SpecError` with one message for all that is wrong.
    """
    if isinstance(source, RunSpec):
        raw, folder = source.model_dump(mode="json", exclude_unset=True), Path.cwd()
    elif isinstance(source, Mapping):
        raw, folder = dict(source), Path.cwd()
    else:
        path = Path(source).expanduser()
        raw, folder = _read(path), path.resolve().parent
    for override in overrides:
        _apply(raw, override)
    raw = _fill_variables(raw)
    spec = validate(raw)
    return validate(_absolute(spec.model_dump(mode="json", exclude_unset=True), folder))


def validate(raw: Mapping[str, Any]) -> RunSpec:
    """Return `raw` as a `RunSpec`; raises `SpecError` naming every wrong key."""
    try:
        spec = RunSpec.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(item) for item in error.errors()]
        head = problems[0] if len(problems) == 1 else f"{len(problems)} keys are wrong:\n  " + "\n  ".join(problems)
        raise SpecError(f"the spec is not valid: {head}", "change the key; `raymill schema` lists all keys") from None
    _check_space(spec)
    return _for_its_task(spec)


def resolved(spec: RunSpec) -> dict[str, Any]:
    """Return the spec with every key it left open, but those that its task does not use or has a default of its own for."""
    from trainer.tasks import catalog as task_catalog

    raw = spec.model_dump(mode="json")
    task = task_catalog.get(spec.task)
    for key in {*task.unused(), *task.own_defaults}:
        section, _, name = key.partition(".")
        if name not in getattr(spec, section).model_fields_set:
            raw[section].pop(name, None)
    return raw


def _for_its_task(spec: RunSpec) -> RunSpec:
    """Return the spec with what it leaves to its task filled in; raises `SpecError` for what the task cannot do."""
    from trainer.tasks import catalog as task_catalog

    task = task_catalog.get(spec.task)
    _must_suit(spec, task)
    metric = _metric_of(spec, task)
    if metric not in task.target.metrics_known:
        raise SpecError(
            f"evaluate.metric={metric} is not computed for {spec.task}", nearest(metric, task.target.metrics_known)
        )
    return spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"metric": metric})})


def _metric_of(spec: RunSpec, task: Task) -> Any:
    """Return what epochs, trials and versions are judged by; raises `SpecError` for goals that the task does not have."""
    given = spec.evaluate.metric
    beside = (*SERVE_FIGURES, *TRIAL_FIGURES)
    known = [*task.target.metrics_known, *beside]
    goals = spec.tune.objective.goals if spec.tune and spec.tune.objective else []
    for name in [*[goal.name for goal in goals], *[rule.name for rule in (spec.tune.rules if spec.tune else [])]]:
        if name not in known:
            raise SpecError(f"tune: {name} is not computed for {spec.task}", nearest(name, known))
    if not goals:
        return task.target.metric if given == "auto" else given
    for goal in goals:
        right = "min" if goal.name in LOWER_IS_BETTER else "max"
        if goal.name not in beside and goal.mode != right:
            raise SpecError(
                f"tune.objective: of {goal.name} {'less' if right == 'min' else 'more'} is better",
                f"put it under {'minimize' if right == 'min' else 'maximize'}",
            )
    first = next(goal.name for goal in goals if goal.name not in beside)
    if given not in ("auto", first):
        raise SpecError(
            f"evaluate.metric={given} is not what tune.objective is about, {first}", "take evaluate.metric out"
        )
    return first


def _must_suit(spec: RunSpec, task: Task) -> None:
    """Raise `SpecError` for keys that mean nothing to the task: whoever set them believes that they work."""
    unused = task.unused()
    space = spec.tune.space if spec.tune else {}
    for key in unused:
        section, _, name = key.partition(".")
        if name in getattr(spec, section).model_fields_set:
            raise SpecError(f"{key} is given, and {spec.task} does not use it", "take it out")
        if any(searched == key or searched.startswith(f"{key}.") for searched in space):
            raise SpecError(f"tune.space searches {key}, and {spec.task} does not use it", "take it out of the space")
    check_loss(spec.train.loss, task.target)
    if spec.data.mode == "streaming" and task.learns_from_features:
        raise SpecError(
            f"data.mode: streaming cannot be used by {spec.task}: its columns are fitted on all training rows first",
            "use data.mode: prepared",
        )
    scheduler = spec.tune.scheduler if spec.tune else "none"
    if scheduler in ("pbt", "hyperband") and task.learns_from_features:
        raise SpecError(
            f"tune.scheduler={scheduler} has trainings wait and go on, which those of {spec.task} cannot",
            "use asha or median",
        )
    if scheduler == "pbt" and spec.cluster.most_workers > 1:
        raise SpecError(
            f"tune.scheduler=pbt is for trials with one worker, not cluster.workers={spec.cluster.workers}", "use asha"
        )
    if spec.data.labels is not None and not task.target.has_labels:
        raise SpecError(f"data.labels lists classes or tags, and {spec.task} has none", "take it out")
    if task.target.has_classes:
        return
    balance = next((step.name for step in spec.data.steps if step.name == "balance"), None)
    by_class = balance or ("split.stratify" if spec.data.split.stratify else None)
    if by_class:
        raise SpecError(f"{by_class} evens classes out, and {spec.task} has none", f"take {by_class} out")


def with_values(spec: RunSpec, values: Mapping[str, Any]) -> RunSpec:
    """Return `spec` with some dotted keys changed, validated again (how a trial gets its own spec)."""
    raw = spec.model_dump(mode="json", exclude_unset=True)
    for key, value in values.items():
        _put(raw, key, value)
    return validate(raw)


def check_loss(how: Loss, target: Target) -> None:
    """Raise `SpecError` for a loss that the target does not have, or a function that is not there."""
    if how.kind == "focal" and "focal" not in target.loss_options:
        raise SpecError(f"train.loss.kind=focal is for classes and tags, not for a {target.kind}", "take it out")
    if how.label_smoothing and "label_smoothing" not in target.loss_options:
        raise SpecError(f"train.loss.label_smoothing is for classes, not for a {target.kind}", "take it out")
    if how.function:
        user_code.find(how.function, "train.loss.function")
