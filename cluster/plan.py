"""Check that a run fits the cluster: add up the CPUs and GPUs of each stage before anything starts.

Ray waits forever for a process that fits on no node. So such a run is rejected here, with the sum and a change that
makes it fit.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.errors import ResourceError
from cluster.machine import count_cores
from cluster.ray_internals import count_gpus

# Capacity of a node for processes that need neither CPU nor GPU.
_UNLIMITED = 10_000


class Node(NamedTuple):
    """The resources of one machine."""

    cpus: float
    gpus: float
    memory: int = 0
    """Bytes of memory that processes may use; 0: not known, so it is not checked."""
    gpu_type: str = ""
    """Type of its GPUs, by Ray's name, for example `A100`; empty: not known."""
    gpu_memory: int = 0
    """Bytes of memory of each GPU; 0: not known, so it is not checked."""


class Demand(NamedTuple):
    """The processes of one stage that run at the same time, each on one node."""

    stage: str
    what: str
    processes: int
    cpus_each: float
    gpus_each: float
    key: str
    """The spec's key whose value to lower if the stage does not fit."""
    memory_each: int = 0
    """Bytes of main memory that one process needs at its peak; 0: not known, so it is not checked."""
    gpu_memory_each: int = 0
    """Bytes of GPU memory that one process needs at its peak, on each of its GPUs; 0: none, or not known."""

    @property
    def cpus(self) -> float:
        """CPU cores of all processes."""
        return self.processes * self.cpus_each

    @property
    def gpus(self) -> float:
        """GPUs of all processes."""
        return self.processes * self.gpus_each

    @property
    def memory(self) -> int:
        """Bytes of main memory of all processes."""
        return self.processes * self.memory_each


def local_nodes(cpus: int | None = None, *, with_gpus: bool = True) -> list[Node]:
    """Return this machine as a list of one node, without starting Ray. `cpus` overrides the number of cores.

    Without `with_gpus`, GPUs are not counted: to count them, Ray is imported.
    """
    return [Node(float(cpus or count_cores()), float(count_gpus() if with_gpus else 0))]


def joined_nodes() -> list[Node]:
    """Return the nodes of the connected Ray that are alive."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive]


def capacity(nodes: list[Node], cpus_each: float, gpus_each: float) -> int:
    """Return how many processes with these CPUs and GPUs each fit on the nodes at the same time."""
    count = 0
    for node in nodes:
        limits = []
        if cpus_each > 0:
            limits.append(int(node.cpus / cpus_each + 1e-9))
        if gpus_each > 0:
            limits.append(int(node.gpus / gpus_each + 1e-9))
        count += min(limits) if limits else _UNLIMITED
    return count


def check_fits(demands: list[Demand], nodes: list[Node]) -> None:
    """Raise `ResourceError` if a demand does not fit on the nodes. The message shows the sum for the first one."""
    total = Node(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    for demand in demands:
        room = capacity(nodes, demand.cpus_each, demand.gpus_each)
        if demand.processes <= room:
            continue
        need = f"{demand.processes} x {demand.cpus_each:g} CPU" + (
            f" and {demand.processes} x {demand.gpus_each:g} GPU" if demand.gpus_each else ""
        )
        have = f"{total.cpus:g} CPU" + (f" and {total.gpus:g} GPU" if demand.gpus_each or total.gpus else "")
        nodes_text = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        change = f"lower `{demand.key}` to {room}" if room else f"lower `{demand.key}`"
        raise ResourceError(
            f"{demand.stage} does not fit: {demand.what} need {need} = {demand.cpus:g} CPU"
            + (f", {demand.gpus:g} GPU" if demand.gpus_each else "")
            + f"; the cluster has {have}{nodes_text}, room for {room}",
            f"{change}, or use a larger cluster",
        )
