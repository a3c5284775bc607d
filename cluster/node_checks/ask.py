"""Run plain functions on the nodes of the connected Ray. A node that does not answer in time is recorded, not awaited.

One actor on each node calls the functions. They travel by value, so a node with another version of raymill, or without
it, answers too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import cluster.machine
import cluster.node_checks
import cluster.ray_internals
from cluster.errors import first_line

_HEAD = "node:__internal_head__"
# Its process has gone, or was never started.
_NO_PROCESS = (ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError)


class NodeAddress(NamedTuple):
    """A node of the cluster, by what Ray knows of it."""

    id: str
    address: str
    host: str
    is_head: bool
    resources: dict[str, float]


class Answers(NamedTuple):
    """What nodes answered to one question, by id of the node, and why others did not."""

    values: dict[str, Any]
    problems: dict[str, str]


def cluster_nodes() -> tuple[list[NodeAddress], list[NodeAddress]]:
    """Return the nodes that Ray calls alive, the head first, and those that it calls dead."""
    alive: list[NodeAddress] = []
    dead: list[NodeAddress] = []
    for node in ray.nodes():
        resources = node["Resources"]
        address = NodeAddress(
            node["NodeID"], node["NodeManagerAddress"], node["NodeManagerHostname"], _HEAD in resources, resources
        )
        (alive if node["Alive"] else dead).append(address)
    return sorted(alive, key=lambda node: (not node.is_head, node.address)), dead


class _Caller:
    """Calls functions on its node."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the function returns there."""
        return function(*arguments)


class NodeCallers:
    """The actors on all nodes. `within_s` is how long a question may take."""

    def __init__(self, nodes: Sequence[NodeAddress], within_s: float) -> None:
        self._within_s = within_s
        actor: Any = ray.remote(num_cpus=0, max_restarts=0)(_Caller)
        self._actors: dict[str, Any] = {
            node.id: actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote()
            for node in nodes
        }

    def ask(self, node: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the answer of one node. Raises an error of Ray's, or the function's own, and after `within_s` too."""
        return ray.get(self._actors[node].call.remote(function, *arguments), timeout=self._within_s)

    def ask_each(self, function: Callable[..., Any], arguments: Mapping[str, Sequence[Any]]) -> Answers:
        """Ask nodes at the same time; `arguments` are the function's, by id of the node."""
        pending = {self._actors[node].call.remote(function, *values): node for node, values in arguments.items()}
        answers = Answers({}, {})
        deadline = time.monotonic() + self._within_s
        left = list(pending)
        while left:
            ready, left = ray.wait(left, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            try:
                answers.values[pending[ready[0]]] = ray.get(ready[0])
            except _NO_PROCESS as error:
                answers.problems[pending[ready[0]]] = f"no process starts there: {first_line(error)}"
            except Exception as error:
                answers.problems[pending[ready[0]]] = first_line(getattr(error, "cause", None) or error)
        for reference in left:
            answers.problems[pending[reference]] = f"no answer within {self._within_s:g} s"
        return answers

    def stop(self) -> None:
        """End the actors."""
        for actor in self._actors.values():
            with contextlib.suppress(Exception):
                ray.kill(actor)


@contextlib.contextmanager
def callers_on(nodes: Sequence[NodeAddress], within_s: float) -> Iterator[NodeCallers]:
    """Yield the actors on the nodes, and end them after the block."""
    modules = (cluster.machine, cluster.ray_internals, cluster.node_checks)
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    callers = None
    try:
        callers = NodeCallers(nodes, within_s)
        yield callers
    finally:
        if callers is not None:
            callers.stop()
        for module in modules:
            ray.cloudpickle.unregister_pickle_by_value(module)
