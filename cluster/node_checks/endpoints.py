"""Endpoints on Ray Serve: whether they run with all their replicas, and on which nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cluster.environment_checks import Check
from cluster.node_checks.answers import fine, look, wrong
from cluster.ray_internals import running_replicas

_CONTROLLER = "SERVE_CONTROLLER_ACTOR"
_RUNNING = "RUNNING"


class Application(NamedTuple):
    """One application of Ray Serve."""

    name: str
    status: str
    message: str
    n_expected: int
    """Replicas that are to run."""
    nodes: list[str]
    """The node of each replica that runs."""


def read_applications(names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the fields of each application of this Ray; none if Ray Serve does not run. `names` has the nodes' by id."""
    import ray.util

    if all(actor["name"] != _CONTROLLER for actor in ray.util.list_named_actors(all_namespaces=True)):
        return []
    import ray.serve

    replicas = running_replicas()
    return [
        {
            "name": name,
            "status": str(overview.status.value),
            "message": overview.message,
            "n_expected": sum(sum(part.replica_states.values()) for part in overview.deployments.values()),
            "nodes": [names.get(node, node) for application, node in replicas if application == name],
        }
        for name, overview in ray.serve.status().applications.items()
    ]


def check_applications(applications: Sequence[Application], n_nodes: int) -> list[Check]:
    """Check the applications; `n_nodes` is how many nodes have CPUs or GPUs for replicas."""
    if not applications:
        return [fine("endpoints", "none on Ray Serve")]
    return [_check(application, n_nodes) for application in applications]


def _check(application: Application, n_nodes: int) -> Check:
    name = f"endpoint {application.name}"
    counts = Counter(application.nodes)
    where = ", ".join(f"{count} on {node}" for node, count in sorted(counts.items())) or "none"
    if application.status != _RUNNING:
        reason = (application.message.strip().splitlines() or [""])[-1][:200]
        text = f"{application.status}; replicas that run: {where}; {reason}".rstrip("; ")
        fix = "look at `serve status`; after a failed update, deploy the version before it again: its replicas are not put back"
        return wrong(name, text, fix)
    if len(application.nodes) < application.n_expected:
        text = f"replicas that run: {where}, of {application.n_expected}"
        return look(name, text, "look at `serve status`: a replica starts, or no node has room for it")
    if len(application.nodes) == 1 and n_nodes > 1:
        return look(name, f"one replica, {where}: if the node fails, nothing answers", "deploy 2 replicas or more")
    if len(counts) == 1 and n_nodes > 1:
        return look(
            name, f"all replicas on one node: {where}", "deploy it again while all nodes are up: Ray Serve spreads"
        )
    return fine(name, f"replicas that run: {where}")
