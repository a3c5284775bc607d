"""Does it fit? What a run will ask of the cluster, added up before anything starts.

Ray itself waits for ever for what can never be placed; here it is refused with the sum and the change that would fit.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.errors import ResourceError


class Node(NamedTuple):
    """What one machine offers."""

    cpus: float
    gpus: float


class Demand(NamedTuple):
    """Processes of one stage, running at the same time, each on one node."""

    stage: str
    what: str
    processes: int
    cpus_each: float
    gpus_each: float
    key: str
    """The spec's key to lower when it does not fit."""

    @property
    def cpus(self) -> float:
        """CPU cores of all of them."""
        return self.processes * self.cpus_each

    @property
    def gpus(self) -> float:
        """GPUs of all of them."""
        return self.processes * self.gpus_each


def local_nodes(cpus: int | None = None) -> list[Node]:
    """Return what this machine offers, without starting Ray."""
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager as Gpus
    from ray._private.utils import get_num_cpus  # what Ray itself will count: it knows of containers' limits

    visible = Gpus.get_current_process_visible_accelerator_ids()
    gpus = Gpus.get_current_node_num_accelerators() if visible is None else len(visible)
    return [Node(float(cpus or get_num_cpus()), float(gpus))]


def joined_nodes() -> list[Node]:
    """Return what the nodes of the connected Ray offer."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in alive]


def places(nodes: list[Node], cpus_each: float, gpus_each: float) -> int:
    """Return how many processes of that size the nodes hold at the same time."""
    count = 0
    for node in nodes:
        limits = []
        if cpus_each > 0:
            limits.append(int(node.cpus / cpus_each + 1e-9))
        if gpus_each > 0:
            limits.append(int(node.gpus / gpus_each + 1e-9))
        count += min(limits) if limits else 10_000
    return count


def check(demands: list[Demand], nodes: list[Node]) -> None:
    """Raise `ResourceError` with the sum for the first demand that can never be placed."""
    total = Node(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    for demand in demands:
        fits = places(nodes, demand.cpus_each, demand.gpus_each)
        if demand.processes <= fits:
            continue
        need = f"{demand.processes} x {demand.cpus_each:g} CPU" + (
            f" and {demand.processes} x {demand.gpus_each:g} GPU" if demand.gpus_each else ""
        )
        have = f"{total.cpus:g} CPU" + (f" and {total.gpus:g} GPU" if demand.gpus_each or total.gpus else "")
        nodes_text = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        change = f"lower {demand.key} to {fits}" if fits else f"ask for less with {demand.key}"
        raise ResourceError(
            f"{demand.stage} does not fit: {demand.what} need {need} = {demand.cpus:g} CPU"
            + (f", {demand.gpus:g} GPU" if demand.gpus_each else "")
            + f"; the cluster has {have}{nodes_text}, room for {fits}",
            f"{change}, or use a larger cluster",
        )
