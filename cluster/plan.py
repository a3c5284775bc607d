"""Check that a run fits the cluster: add up the CPUs, GPUs and memory of each stage before anything starts.

Ray waits forever for a process that fits on no node, and the system kills a process that takes more memory than there is.
So such a run is rejected here, with the sum and changes that make it fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cluster.accelerators import memory_of_type, type_in_resources
from cluster.errors import ResourceError
from cluster.machine import available_memory, count_cores
from cluster.ray_internals import count_gpus
from cluster.text import format_bytes

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
    """Bytes of main memory that one process needs at its peak; 0: not known. An upper bound if rows are not known."""
    gpu_memory_each: int = 0
    """Bytes of GPU memory that one process needs at its peak; 0: none, or not known. May be an upper bound, too."""
    least_memory_each: int = 0
    """Bytes of main memory that one process needs in any case, by which a run is refused; 0: not checked."""
    least_gpu_memory_each: int = 0
    """Bytes of GPU memory that one process needs in any case, by which a run is refused; 0: not checked."""

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
    return [Node(float(cpus or count_cores()), float(count_gpus() if with_gpus else 0), available_memory())]


def joined_nodes() -> list[Node]:
    """Return the nodes of the connected Ray that are alive."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [_node_of_resources(resources) for resources in alive]


def _node_of_resources(resources: dict[str, float]) -> Node:
    gpus, gpu_type = resources.get("GPU", 0.0), type_in_resources(resources)
    memory = int(resources.get("memory", 0))  # without what Ray keeps for its object store
    return Node(
        resources.get("CPU", 0.0), gpus, memory, gpu_type if gpus else "", memory_of_type(gpu_type) if gpus else 0
    )


def capacity(
    nodes: list[Node], cpus_each: float, gpus_each: float, memory_each: int = 0, gpu_memory_each: int = 0
) -> int:
    """Return how many processes with these CPUs, GPUs and bytes of memory each fit on the nodes at the same time.

    Memory of a node that is not known does not limit the number.
    """
    count = 0
    for node in nodes:
        limits = []
        if cpus_each > 0:
            limits.append(int(node.cpus / cpus_each + 1e-9))
        if gpus_each > 0:
            limits.append(int(node.gpus / gpus_each + 1e-9))
        if memory_each and node.memory:
            limits.append(node.memory // memory_each)
        if gpu_memory_each and node.gpu_memory and gpu_memory_each > node.gpu_memory * min(1.0, gpus_each):
            limits.append(0)
        count += min(limits) if limits else _UNLIMITED
    return count


#: Returns what makes a demand fit that takes too much memory, as sentences; it may be empty.
Remedies = Callable[[Demand], Sequence[str]]


def check_fits(demands: list[Demand], nodes: list[Node], remedies: Remedies | None = None) -> None:
    """Raise `ResourceError` if a demand does not fit on the nodes. The message shows the sum for the first one.

    `remedies` is asked what would fit instead if memory is the reason.
    """
    total = Node(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    for demand in demands:
        room = capacity(nodes, demand.cpus_each, demand.gpus_each)
        if demand.processes > room:
            raise _too_many_processes(demand, total, len(nodes), room)
    for demand in demands:
        least = (demand.least_memory_each, demand.least_gpu_memory_each)
        room = capacity(nodes, demand.cpus_each, demand.gpus_each, *least)
        if demand.processes > room:
            raise _too_much_memory(demand, nodes, room, remedies(demand) if remedies else [])


def _too_many_processes(demand: Demand, total: Node, n_nodes: int, room: int) -> ResourceError:
    need = f"{demand.processes} x {demand.cpus_each:g} CPU" + (
        f" and {demand.processes} x {demand.gpus_each:g} GPU" if demand.gpus_each else ""
    )
    have = f"{total.cpus:g} CPU" + (f" and {total.gpus:g} GPU" if demand.gpus_each or total.gpus else "")
    nodes_text = f" on {n_nodes} nodes" if n_nodes > 1 else ""
    change = f"lower `{demand.key}` to {room}" if room else f"lower `{demand.key}`"
    return ResourceError(
        f"{demand.stage} does not fit: {demand.what} need {need} = {demand.cpus:g} CPU"
        + (f", {demand.gpus:g} GPU" if demand.gpus_each else "")
        + f"; the cluster has {have}{nodes_text}, room for {room}",
        f"{change}, or use a larger cluster",
    )


def _too_much_memory(demand: Demand, nodes: list[Node], room: int, remedies: Sequence[str]) -> ResourceError:
    on_gpu = (
        demand.least_gpu_memory_each
        and capacity(nodes, demand.cpus_each, demand.gpus_each, 0, demand.least_gpu_memory_each) < demand.processes
    )
    if on_gpu:
        need, what = demand.least_gpu_memory_each, "GPU memory"
        largest = max(node.gpu_memory for node in nodes)
        have = f"the largest GPU has {format_bytes(largest)}"
    else:
        need, what = demand.least_memory_each, "memory"
        largest = max(node.memory for node in nodes)
        have = f"the largest node has {format_bytes(largest)} for processes, room for {room} on all nodes together"
    fix = "; or ".join(remedies) if remedies else "use nodes with more memory"
    return ResourceError(
        f"{demand.stage} does not fit: {demand.what} need {demand.processes} x {format_bytes(need)} of {what}; {have}",
        f"{fix}. `raymill plan --explain` shows the sum",
    )
