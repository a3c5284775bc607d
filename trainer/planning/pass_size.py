"""How many rows or tokens a worker puts through the model at a time, by the unit in which a task counts a step."""

from __future__ import annotations

from typing import NamedTuple

from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.tasks import catalog as task_catalog


class StepUnit(NamedTuple):
    """The unit in which a step is counted."""

    name: str
    """In a sentence: `rows`."""
    step_key: str
    """The key of `train:` with the size of a step."""
    pass_key: str
    """The key of `train:` that limits a pass."""
    largest: int
    """The size of a step if its key is auto and the rows are not known: the largest that raymill chooses."""
    fewest_each: int
    """The units of each step that a worker must have: with fewer, workers wait for each other more than they compute."""
    smallest_pass: int
    """A pass is not made smaller than this to save memory."""


_UNITS = {
    "rows": StepUnit("rows", "batch_size", "micro_batch_size", 64, 8, 1),
    "tokens": StepUnit("tokens", "tokens_per_step", "micro_batch_tokens", 32_768, 1_024, 512),
}


def step_unit(spec: RunSpec) -> StepUnit:
    """Return the unit in which the task of `spec` counts a step."""
    return _UNITS[task_catalog.get_task(spec.task).step_unit]


def units_per_step(spec: RunSpec) -> int:
    """Return the rows or tokens of a step; if raymill is to choose them, the most that it chooses."""
    unit = step_unit(spec)
    size = getattr(spec.train, unit.step_key)
    return unit.largest if size == AUTO else int(size)


def units_per_pass(spec: RunSpec, workers: int) -> int:
    """Return the most rows or tokens that one worker puts through the model at a time, with `workers` workers."""
    own = -(-units_per_step(spec) // workers)
    most = getattr(spec.train, step_unit(spec).pass_key)
    return own if most is None else -(-own // -(-own // most))


def rows_per_pass(spec: RunSpec, workers: int, longest: int) -> int:
    """Return the most rows of `longest` tokens that one worker puts through the model at a time, at least one."""
    units = units_per_pass(spec, workers)
    return units if step_unit(spec).name == "rows" else -(-units // max(1, longest))
