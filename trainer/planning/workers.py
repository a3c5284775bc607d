"""The number of workers that `cluster.workers: auto` stands for."""

from __future__ import annotations

from typing import NamedTuple

from cluster.plan import Node, capacity
from trainer.planning.pass_size import step_unit, units_per_step
from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.tasks import catalog as task_catalog
from trainer.tasks.estimators.backend import worker_backend
from trainer.tasks.load_spec import override_spec


class ChosenWorkers(NamedTuple):
    """A number of workers, and why."""

    workers: int
    reason: str
    """A part of a sentence."""


def choose_workers(spec: RunSpec, nodes: list[Node]) -> ChosenWorkers:
    """Return the number of workers for these nodes.

    With `gpus_per_worker`, one worker for each GPU (or share). Without, one worker for each node: a worker's threads use
    all cores of its node, and two workers on a node would exchange gradients for nothing. A search has one worker a
    trial: more trials at once are faster than more workers. Every worker gets at least `StepUnit.fewest_each` rows or
    tokens of a step.
    """
    if spec.tune is not None:
        return ChosenWorkers(1, "a search runs more trials at once instead")
    if worker_backend(task_catalog.get_task(spec.task), spec) == "none":
        return ChosenWorkers(1, f"model.kind={spec.model.kind} is fitted by one process")
    gpus = spec.cluster.gpus_per_worker
    if gpus:
        most, reason = capacity(nodes, spec.cluster.cpus_per_worker or 1, gpus), "one for each GPU"
    else:
        cpus = spec.cluster.cpus_per_worker
        most = capacity(nodes, cpus, 0) if cpus else len(nodes)
        reason = f"one for each {cpus} cores" if cpus else "one for each node, with all its cores"
    unit, batch = step_unit(spec), units_per_step(spec)
    by_rows = max(1, batch // unit.fewest_each)
    if spec.data.mode == "streaming" and spec.train.batch_size != AUTO:
        by_rows = max(count for count in range(1, by_rows + 1) if batch % count == 0)
    if by_rows < most:
        return ChosenWorkers(by_rows, f"each gets at least {unit.fewest_each:,} of the {batch:,} {unit.name} of a step")
    return ChosenWorkers(max(1, most), reason)


def resolve_workers(spec: RunSpec, nodes: list[Node]) -> tuple[RunSpec, ChosenWorkers | None]:
    """Return the spec with a number of workers instead of `auto`, and the choice; the spec itself if it has a number."""
    if spec.cluster.workers != AUTO:
        return spec, None
    chosen = choose_workers(spec, nodes)
    return override_spec(spec, {"cluster.workers": chosen.workers}), chosen
