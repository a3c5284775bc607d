"""From a YAML file and `--set` overrides to a `RunSpec`, or to one message that says what to change."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cluster.errors import SpecError, nearest
from trainer.spec import LOWER_IS_BETTER, NAME_PATTERN, RunSpec
from trainer.spec_data import FUNCTION_PATTERN, REDACTED_NAME_PATTERN
from trainer.spec_tune import SERVE_FIGURES, TRIAL_FIGURES

if TYPE_CHECKING:
    from trainer.tasks.base import Task

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_PATTERN_RULES = {
    NAME_PATTERN: "must be lower-case letters, digits, _ and -, starting with a letter or digit, at most 63 characters",
    FUNCTION_PATTERN: "must be module:function, as my_steps:clean",
    REDACTED_NAME_PATTERN: "must be lower-case letters, digits and _, starting with a letter, as order_number",
}
# Path-like keys, relative to the spec's file when they are not absolute.
_SOURCE_KEYS = ("train", "validation", "test")
# Keys that change a row's content, by which it is held out or not.
_SPLIT_BY = ("data.steps", "data.features", "data.columns")


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `1e-4` as a number (YAML 1.2 does, PyYAML's 1.1 rules do not) and refuses a key given twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$|^[-+]?\.\d+([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


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
    from trainer import tasks

    raw = spec.model_dump(mode="json")
    task = tasks.get(spec.task)
    for key in {*task.unused(), *task.own_defaults}:
        section, _, name = key.partition(".")
        if name not in getattr(spec, section).model_fields_set:
            raw[section].pop(name, None)
    return raw


def _for_its_task(spec: RunSpec) -> RunSpec:
    """Return the spec with what it leaves to its task filled in; raises `SpecError` for what the task cannot do."""
    from trainer import tasks

    task = tasks.get(spec.task)
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
    from trainer.training import loss

    unused = task.unused()
    space = spec.tune.space if spec.tune else {}
    for key in unused:
        section, _, name = key.partition(".")
        if name in getattr(spec, section).model_fields_set:
            raise SpecError(f"{key} is given, and {spec.task} does not use it", "take it out")
        if any(searched == key or searched.startswith(f"{key}.") for searched in space):
            raise SpecError(f"tune.space searches {key}, and {spec.task} does not use it", "take it out of the space")
    loss.check(spec.train.loss, task.target)
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


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            f"there is no spec at {path}", "give the path of a YAML file, as examples/support_tickets/run.yaml"
        ) from None
    except IsADirectoryError:
        raise SpecError(
            f"{path} is a folder, not a spec", f"name the YAML file in it, as {path / 'run.yaml'}"
        ) from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader with two stricter rules
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError(
            f"{path}{where} is not YAML: {getattr(error, 'problem', error)}", "check quotes and indentation"
        ) from None
    if not isinstance(raw, dict):
        found = "empty" if raw is None else f"a {type(raw).__name__}"
        raise SpecError(f"{path} is {found}, not a mapping of keys", "start with `name:`, `data:` and `model:`")
    return raw


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {override!r} has no value", "write it as --set train.epochs=1")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    _put(raw, key.strip(), value)


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; the sections on its way are copied, because specs of trials share them."""
    # Keys of the search space hold dots themselves.
    path = ["tune", "space", key.removeprefix("tune.space.")] if key.startswith("tune.space.") else key.split(".")
    place = raw
    for depth, part in enumerate(path[:-1]):
        section = place.get(part)
        if section is not None and not isinstance(section, dict):
            above = ".".join(path[: depth + 1])
            raise SpecError(f"'{key}' cannot be set: '{above}' is a value, not a section", f"set '{above}' itself")
        place[part] = dict(section or {})
        place = place[part]
    place[path[-1]] = value


def _fill_variables(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _fill_variables(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_variables(item) for item in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(match: re.Match[str]) -> str:
    name, default = match.groups()
    found = os.environ.get(name, default)
    if found is None:
        raise SpecError(
            f"the spec uses ${{{name}}}, and the environment variable {name} is not set",
            f"export {name}=..., or give a default as ${{{name}:-value}}",
        )
    return found


def _absolute(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    def full(path: str) -> str:
        try:
            return path if "://" in path else str(folder / Path(path).expanduser())
        except RuntimeError:
            raise SpecError(f"{path!r} names a home folder that is not there", "write the path out") from None

    def base(given: str) -> str:
        # A hub id looks like a relative path: it is one only if such a folder is there, or it says so.
        local = given.startswith((".", "~", "/")) or (
            "://" not in given and len(given) < 250 and (folder / given).is_dir()
        )
        return full(given) if local else given

    data = dict(raw["data"])
    for key in _SOURCE_KEYS:
        if isinstance(data.get(key), str):
            data[key] = full(data[key])
        elif isinstance(data.get(key), list):
            data[key] = [full(item) for item in data[key]]
    model = dict(raw.get("model") or {})
    if model.get("base"):
        model["base"] = base(model["base"])
    storage = raw.get("storage", RunSpec.model_fields["storage"].default)
    if "://" in storage:
        raise SpecError(
            f"storage={storage!r}: only folders are written to", "name a folder, on a cluster one that all nodes see"
        )
    found = {**raw, "data": data, "model": model, "storage": full(storage)}
    space = ((raw.get("tune") or {}).get("space") or {}).get("model.base", {})
    if space.get("choice"):
        tune = {
            **raw["tune"],
            "space": {**raw["tune"]["space"], "model.base": {**space, "choice": [base(b) for b in space["choice"]]}},
        }
        found["tune"] = tune
    return found


def _check_space(spec: RunSpec) -> None:
    if spec.tune is None:
        return
    for key, domain in spec.tune.space.items():
        section, _, rest = key.partition(".")
        if section not in {"data", "model", "train"} or not rest:
            raise SpecError(
                f"tune.space.{key} cannot be searched", "search single keys of data, model and train, as train.epochs"
            )
        if key in {"data.train", "data.validation", "data.test"} or key.startswith("data.split"):
            raise SpecError(f"tune.space.{key} would compare trials on different rows", "take it out of the space")
        if key.startswith(_SPLIT_BY) and spec.data.validation is None:
            raise SpecError(
                f"tune.space.{key} would hold out other rows for each value: a row's part goes by its cleaned content",
                "give validation rows of their own with data.validation",
            )
        if key.startswith(("data.", "model.base")) and domain.choice is None:
            raise SpecError(
                f"tune.space.{key} changes the prepared data, which is made once for each value before the search",
                f"list its values: {key}: {{choice: [...]}}",
            )
        for value in domain.edges:
            raw = spec.model_dump(mode="json", exclude_unset=True)
            raw.pop("tune")
            _put(raw, key, value)
            try:
                RunSpec.model_validate(raw)
            except ValidationError as error:
                raise SpecError(
                    f"tune.space.{key} holds {value!r}, which is not valid: {_explain(error.errors()[0])}",
                    "change the key's name or its values; `raymill schema` lists all keys",
                ) from None


def _explain(item: Any) -> str:
    # Without the tags of a union, and without the mark of a mapping's key, which itself stands before it.
    location = [
        part for part in item["loc"] if not (isinstance(part, str) and (part.startswith("<") or part == "[key]"))
    ]
    key = ".".join(str(part) for part in location) or "the spec"
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return f"unknown key '{key}'; {nearest(str(location[-1]), _keys_at(location[:-1]))}"
    if kind == "missing":
        return f"'{key}' is missing; it must be given"
    rule = item["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {rule}" if location else rule
    if kind == "string_pattern_mismatch":
        rule = _PATTERN_RULES.get(item["ctx"]["pattern"], rule)
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return f"{key}={shown}: {rule[0].lower()}{rule[1:]}"


def _keys_at(location: Iterable[Any]) -> list[str]:
    """The known keys of the section at `location`."""
    section: type[BaseModel] = RunSpec
    for part in location:
        field = section.model_fields.get(str(part))
        if field is not None:  # else the key of a dict or the place in a list: its section is already reached
            section = next(_sections(field.annotation), section)
    return list(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that an annotation as `list[Section] | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
