"""The number of workers that `cluster.workers: auto` stands for."""

from __future__ import annotations

from typing import NamedTuple

from cluster.plan import Node, capacity
from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.tasks import catalog as task_catalog
from trainer.tasks.estimators.backend import worker_backend
from trainer.tasks.load_spec import override_spec

#: Rows of each step that a worker must have at least: with fewer, workers wait for each other more than they compute.
MIN_ROWS_EACH = 8
# The largest batch that raymill chooses if `train.batch_size` is auto.
_LARGEST_BATCH = 64


class ChosenWorkers(NamedTuple):
    """A number of workers, and why."""

    workers: int
    reason: str
    """A part of a sentence."""


def choose_workers(spec: RunSpec, nodes: list[Node]) -> ChosenWorkers:
    """Return the number of workers for these nodes.

    With `gpus_per_worker`, one worker for each GPU (or share). Without, one worker for each node: a worker's threads use
    all cores of its node, and two workers on a node would exchange gradients for nothing. A search has one worker a
    trial: more trials at once are faster than more workers. Every worker gets at least `MIN_ROWS_EACH` rows of a step.
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
    batch = _LARGEST_BATCH if spec.train.batch_size == AUTO else spec.train.rows_per_step
    by_rows = max(1, batch // MIN_ROWS_EACH)
    if spec.data.mode == "streaming" and spec.train.batch_size != AUTO:
        by_rows = max(count for count in range(1, by_rows + 1) if batch % count == 0)
    if by_rows < most:
        return ChosenWorkers(by_rows, f"each gets at least {MIN_ROWS_EACH} of the {batch} rows of a step")
    return ChosenWorkers(max(1, most), reason)


def resolve_workers(spec: RunSpec, nodes: list[Node]) -> tuple[RunSpec, ChosenWorkers | None]:
    """Return the spec with a number of workers instead of `auto`, and the choice; the spec itself if it has a number."""
    if spec.cluster.workers != AUTO:
        return spec, None
    chosen = choose_workers(spec, nodes)
    return override_spec(spec, {"cluster.workers": chosen.workers}), chosen
