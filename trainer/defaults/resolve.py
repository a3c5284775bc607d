"""Replace every `auto` of a spec by a value for its rows, and store the values in the folder of the training.

The stored values count from then on: a training that is resumed uses them, whatever the rule would choose by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.files import read_json, write_json
from trainer.data.prepared import Prepared
from trainer.defaults.facts import Choice, TrainingFacts, collect_facts
from trainer.defaults.language_models import choose_by_tokens
from trainer.defaults.rule import choose_training
from trainer.defaults.tables import choose_table
from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.spec.train import TrainSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks.load_spec import override_spec

#: The values that raymill chose, by dotted key, with the reasons. In a run's folder, or in that of a trial.
CHOICES_FILE = "auto.json"
#: The rule for `train:`, by the unit in which a task counts a step.
_RULES: dict[str, Callable[[TrainingFacts, TrainSpec], dict[str, Choice]]] = {
    "rows": choose_training,
    "tokens": choose_by_tokens,
}


class ResolvedSpec(NamedTuple):
    """A spec without `auto` in the keys that its training uses."""

    spec: RunSpec
    choices: dict[str, Choice]
    """The chosen values by dotted key, for example `train.learning_rate`."""


def resolve_spec(spec: RunSpec, prepared: Prepared) -> ResolvedSpec:
    """Return the spec with values for these rows. Keys that the spec sets stay as they are.

    The same spec and rows give the same values. Raises `ModelError` if the base model cannot be found.
    """
    task = task_catalog.get_task(spec.task)
    if task.learns_from_features:
        return apply_choices(spec, choose_table(spec, task, prepared))
    chosen = _RULES[task.step_unit](collect_facts(spec, task, prepared), spec.train)
    return apply_choices(spec, {f"train.{key}": choice for key, choice in chosen.items()})


def resolve_once(spec: RunSpec, prepared: Prepared, folder: Path) -> ResolvedSpec:
    """Return the spec with the values stored in `folder`; choose and store them if there are none."""
    stored = {key: choice for key, choice in read_choices(folder).items() if _is_auto(spec, key)}
    if stored:
        return apply_choices(spec, stored)
    resolved = resolve_spec(spec, prepared)
    store_choices(resolved.choices, folder)
    return resolved


def _is_auto(spec: RunSpec, key: str) -> bool:
    """Return whether a spec leaves a key that may be `auto` to raymill."""
    section, _, name = key.rpartition(".")
    return name not in spec.model.params if section == "model.params" else getattr(spec.train, name) == AUTO


def choose_search_epochs(variants: Sequence[tuple[RunSpec, Prepared]]) -> dict[str, Choice]:
    """Return the number of epochs of all trials of a search; `variants` are its specs with their rows.

    It is the largest of any variant, so that trials can be compared after the same number. Because it is set for every
    trial, only the search's scheduler ends a trial early. Empty if the spec sets the number.
    """
    if variants[0][0].train.epochs != AUTO:
        return {}
    epochs = [resolve_spec(spec, prepared).choices.get("train.epochs") for spec, prepared in variants]
    longest = max((choice for choice in epochs if choice), key=lambda choice: int(choice.value), default=None)
    return {"train.epochs": longest or Choice(1, "the model is fitted in one step")}


def apply_choices(spec: RunSpec, choices: Mapping[str, Choice]) -> ResolvedSpec:
    """Return the spec with the values of `choices`."""
    if not choices:
        return ResolvedSpec(spec, {})
    return ResolvedSpec(override_spec(spec, {key: choice.value for key, choice in choices.items()}), dict(choices))


def store_choices(choices: Mapping[str, Choice], folder: Path) -> None:
    """Write the choices of a training into its folder; nothing if raymill chose nothing."""
    if choices:
        write_json(folder / CHOICES_FILE, {key: choice._asdict() for key, choice in choices.items()})


def read_choices(folder: Path) -> dict[str, Choice]:
    """Return the choices that `store_choices` wrote; empty if there are none."""
    path = folder / CHOICES_FILE
    return {key: Choice(**choice) for key, choice in read_json(path).items()} if path.is_file() else {}
