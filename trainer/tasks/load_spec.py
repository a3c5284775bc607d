"""Load a spec: read it, validate it, and apply the defaults and the rules of its task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cluster.errors import SpecError, suggest
from cluster.paths import expand_home
from trainer.contract.user_code import find_source
from trainer.spec.error_messages import explain_errors
from trainer.spec.evaluate import LOWER_IS_BETTER
from trainer.spec.key_types import Path as KeyPath
from trainer.spec.objective import SERVING_METRICS, TRIAL_METRICS, Goal
from trainer.spec.overrides import apply_override, set_key
from trainer.spec.parse import check_search_space, fill_variables, resolve_paths
from trainer.spec.run import RunSpec
from trainer.spec.spec_file import read_spec_document
from trainer.spec.train import LossSpec
from trainer.spec.yaml_reader import Written
from trainer.targets.base import Target
from trainer.tasks.spec_keys import unused_keys

if TYPE_CHECKING:
    from trainer.tasks.base import Task


def load_spec(source: str | Path | RunSpec | Mapping[str, Any], overrides: Iterable[str] = ()) -> RunSpec:
    """Return the spec of a YAML file, a mapping or a `RunSpec`, with overrides applied (`"train.epochs=1"`).

    The paths in a file are relative to the file, those in a mapping to the working directory.
    Raises `SpecError` with one message for all mistakes.
    """
    written: dict[KeyPath, Written] = {}
    if isinstance(source, RunSpec):
        raw, folder = source.model_dump(mode="json", exclude_unset=True), Path.cwd()
    elif isinstance(source, Mapping):
        raw, folder = dict(source), Path.cwd()
    else:
        path = expand_home(source)
        (raw, written), folder = read_spec_document(path), path.resolve().parent
    for override in overrides:
        apply_override(raw, override, written)
    raw = fill_variables(raw)
    spec = validate_spec(raw, written)
    return validate_spec(resolve_paths(spec.model_dump(mode="json", exclude_unset=True), folder))


def validate_spec(raw: Mapping[str, Any], written: Mapping[KeyPath, Written] | None = None) -> RunSpec:
    """Return `raw` as a `RunSpec`. Raises `SpecError` naming every wrong key, with its line if `written` has it."""
    try:
        spec = RunSpec.model_validate(raw)
    except ValidationError as error:
        problems = explain_errors(error.errors(), raw, written)
        summary = problems[0] if len(problems) == 1 else f"{len(problems)} keys are wrong:\n  " + "\n  ".join(problems)
        raise SpecError(
            f"the spec is not valid: {summary}", "change the key; `raymill schema` lists all keys"
        ) from None
    check_search_space(spec)
    return _complete(spec)


def override_spec(spec: RunSpec, values: Mapping[str, Any]) -> RunSpec:
    """Return `spec` with the dotted keys of `values` changed, validated again. A search creates its trials with it."""
    raw = spec.model_dump(mode="json", exclude_unset=True)
    for key, value in values.items():
        set_key(raw, key, value)
    return validate_spec(raw)


def resolve_defaults(spec: RunSpec) -> dict[str, Any]:
    """Return the spec as plain JSON with all defaults filled in.

    Keys that the task does not use are included only if the spec sets them.
    """
    from trainer.tasks import catalog as task_catalog

    raw = spec.model_dump(mode="json")
    task = task_catalog.get_task(spec.task)
    for key in unused_keys(task.used_keys | task.target.used_keys):
        section, _, name = key.partition(".")
        if name not in getattr(spec, section).model_fields_set:
            raw[section].pop(name, None)
    return raw


def _complete(spec: RunSpec) -> RunSpec:
    """Return the spec with `evaluate.metric` filled in. Raises `SpecError` if the task cannot do what the spec says."""
    from trainer.tasks import catalog as task_catalog

    task = task_catalog.get_task(spec.task)
    _check_keys_are_used(spec, task)
    check_loss(spec.train.loss, task.target)
    _check_modes(spec, task)
    _check_classes(spec, task)
    metric = _choose_metric(spec, task)
    if metric not in task.target.metric_names:
        raise SpecError(
            f"evaluate.metric={metric} is not computed for {spec.task}", suggest(metric, task.target.metric_names)
        )
    spec = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"metric": metric})})
    _check_gate(spec, task)
    return spec


def _check_gate(spec: RunSpec, task: Task) -> None:
    """Raise `SpecError` if the metric that the gate decides on is not computed on the held-out rows."""
    metric, target = spec.gate_evaluation.metric, task.target
    if metric in target.metric_names or (spec.evaluate.answers and metric in spec.evaluate.answers.metrics):
        return
    if metric in target.held_out_metric_names:
        raise SpecError(
            f"promote.metric={metric} is a metric of answers, and evaluate.answers.metrics does not name it",
            f"add `{metric}` to `evaluate.answers.metrics`",
        )
    known = [*target.metric_names, *target.held_out_metric_names]
    raise SpecError(f"promote.metric={metric} is not computed for {spec.task}", suggest(metric, known))


def _choose_metric(spec: RunSpec, task: Task) -> Any:
    """Return the metric that chooses epochs, trials and versions. Raises `SpecError` for unknown goals."""
    metric = spec.evaluate.metric
    goals = spec.tune.objective.goals if spec.tune and spec.tune.objective else []
    _check_goals(spec, goals, task)
    if not goals:
        return task.default_metric(spec) if metric == "auto" else metric
    first = next(goal.name for goal in goals if goal.name not in (*SERVING_METRICS, *TRIAL_METRICS))
    if metric not in ("auto", first):
        raise SpecError(
            f"evaluate.metric={metric} differs from the metric of tune.objective, {first}", "remove `evaluate.metric`"
        )
    return first


def _check_goals(spec: RunSpec, goals: list[Goal], task: Task) -> None:
    general = (*SERVING_METRICS, *TRIAL_METRICS)
    known = [*task.target.metric_names, *general]
    constraints = spec.tune.parsed_constraints if spec.tune else []
    for name in [*[goal.name for goal in goals], *[constraint.name for constraint in constraints]]:
        if name not in known:
            raise SpecError(f"tune: {name} is not computed for {spec.task}", suggest(name, known))
    for goal in goals:
        mode = "min" if goal.name in LOWER_IS_BETTER else "max"
        if goal.name not in general and goal.mode != mode:
            raise SpecError(
                f"tune.objective: for {goal.name}, {'lower' if mode == 'min' else 'higher'} is better",
                f"put it under `{'minimize' if mode == 'min' else 'maximize'}`",
            )


def _check_keys_are_used(spec: RunSpec, task: Task) -> None:
    """Raise `SpecError` for keys that the task ignores: the user who set them expects an effect."""
    space = spec.tune.space if spec.tune else {}
    for key in unused_keys(task.used_keys | task.target.used_keys):
        section, _, name = key.partition(".")
        if name in getattr(spec, section).model_fields_set:
            raise SpecError(f"{key} is set, but {spec.task} does not use it", f"remove `{key}`")
        if any(searched == key or searched.startswith(f"{key}.") for searched in space):
            raise SpecError(
                f"tune.space searches {key}, but {spec.task} does not use it", f"remove `{key}` from `tune.space`"
            )


def _check_modes(spec: RunSpec, task: Task) -> None:
    """Raise `SpecError` if the task cannot stream its rows, or cannot pause trials as the scheduler requires."""
    if spec.data.mode == "streaming" and task.learns_from_features:
        raise SpecError(
            f"data.mode: streaming cannot be used by {spec.task}: its columns are fitted on all training rows first",
            "use `data.mode: prepared`",
        )
    scheduler = spec.tune.scheduler if spec.tune else "none"
    if scheduler in ("pbt", "hyperband") and task.learns_from_features:
        raise SpecError(
            f"tune.scheduler={scheduler} pauses and resumes trials, which {spec.task} does not support",
            "use `scheduler: asha` or `median`",
        )
    if scheduler == "pbt" and spec.cluster.max_workers > 1:
        raise SpecError(
            f"tune.scheduler=pbt is for trials with one worker, not cluster.workers={spec.cluster.workers}",
            "use `scheduler: asha`",
        )


def _check_classes(spec: RunSpec, task: Task) -> None:
    """Raise `SpecError` for keys about classes or labels if the target has none."""
    if spec.data.labels is not None and not task.target.has_labels:
        raise SpecError(f"data.labels lists classes or tags, and {spec.task} has none", "remove `data.labels`")
    if task.target.has_classes:
        return
    key = "balance" if any(step.name == "balance" for step in spec.data.steps) else None
    key = key or ("split.stratify" if spec.data.split.stratify else None)
    if key:
        raise SpecError(f"{key} needs classes, and {spec.task} has none", f"remove `{key}`")


def check_loss(loss: LossSpec, target: Target) -> None:
    """Raise `SpecError` for a loss that the target does not have, or a custom loss whose module is missing."""
    if loss.kind == "focal" and "focal" not in target.loss_options:
        raise SpecError(
            f"train.loss.kind=focal is for classes and tags; the target here is a {target.kind}",
            "remove `train.loss.kind`",
        )
    if loss.label_smoothing and "label_smoothing" not in target.loss_options:
        raise SpecError(
            f"train.loss.label_smoothing is for classes; the kind of target here is {target.kind}",
            "remove `train.loss.label_smoothing`",
        )
    if loss.function:
        find_source(loss.function, "train.loss.function")
