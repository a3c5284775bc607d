"""How many processes of which size a run has at once: the least it starts with, and the most it may grow to."""

from __future__ import annotations

import math
from typing import NamedTuple

from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.machine_types import MachineType


class ProcessNeed(NamedTuple):
    """The processes of one stage that run at the same time."""

    stage: str
    cpus_each: float
    gpus_each: float
    minimum: int
    """Number of them without which the stage does not start."""
    maximum: int
    """Number of them that an elastic training, or an endpoint under load, may grow to."""
    memory_each: int = 0
    """Bytes that one of them needs at its peak; 0: not known."""

    def without_growth(self) -> ProcessNeed:
        """Return this need, of an elastic training at its minimum."""
        return self._replace(maximum=self.minimum) if self.stage == "train" else self


class Bounds(NamedTuple):
    """Numbers of machines."""

    minimum: int
    maximum: int

    def with_more(self, machines: int) -> Bounds:
        """Return bounds whose maximum is higher by a number of machines."""
        return self._replace(maximum=self.maximum + machines)


def list_needs(inputs: ManifestInputs, *, with_gpus: bool) -> list[ProcessNeed]:
    """Return the needs of the stages whose processes have GPUs, or of those that have none."""
    workers, serve = inputs.spec.cluster, inputs.spec.serve
    needs = []
    for demand in inputs.demands:
        if (demand.gpus_each > 0) != with_gpus:
            continue
        least, most = demand.processes, demand.processes
        if demand.stage == "train":
            most = demand.processes * workers.max_workers // workers.min_workers
        if demand.stage == "serve":
            least = serve.min_replicas
        needs.append(ProcessNeed(demand.stage, demand.cpus_each, demand.gpus_each, least, most, demand.memory_each))
    return needs


def machine_bounds(needs: list[ProcessNeed], machine: MachineType) -> Bounds:
    """Return how many machines of a type the needs take, one stage after the other."""

    def count(processes: int, need: ProcessNeed) -> int:
        room = machine.room(need.cpus_each, need.gpus_each, need.memory_each)
        return math.ceil(processes / room) if room else processes

    return Bounds(
        max((count(need.minimum, need) for need in needs), default=0),
        max((count(need.maximum, need) for need in needs), default=0),
    )


def most_memory(needs: list[ProcessNeed]) -> int:
    """Return the bytes of the largest process."""
    return max((need.memory_each for need in needs), default=0)
