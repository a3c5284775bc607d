"""Memory: what Ray takes for itself and its tasks, against the node's and its container's; shared memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from cluster.environment_checks import Check
from cluster.machine import memory_limit
from cluster.node_checks.answers import NodeAnswer, fine, look, where, wrong

_GIB = 2**30


def read_memory() -> dict[str, int | None]:
    """Return the bytes of memory that this node may use, and of its shared memory: None if it has none."""
    try:
        shared: int | None = shutil.disk_usage("/dev/shm").total
    except OSError:
        shared = None
    return {"limit": memory_limit(), "shared": shared}


def check_memory(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check Ray's memory against the node's, and the size of the object store against shared memory."""
    checks = []
    for node in nodes:
        limit, taken = node.facts["memory"]["limit"], _for_tasks(node) + _object_store(node)
        if taken > limit:
            text = f"Ray plans with {taken / _GIB:.1f} GiB on {node.name}, which may use {limit / _GIB:.1f} GiB"
            fix = "start the node with `--memory` and `--object-store-memory` (bytes) that fit its container together"
            checks.append(wrong("Ray's memory", text, fix))
    if not checks:
        total = sum(_for_tasks(node) for node in nodes)
        checks.append(fine("Ray's memory", f"{total / _GIB:.1f} GiB for tasks; on every node within its limit"))
    return [*checks, _check_shared_memory(nodes)]


def _check_shared_memory(nodes: Sequence[NodeAnswer]) -> Check:
    small = where(nodes, lambda node: (node.facts["memory"]["shared"] or 0) < _object_store(node))
    if small:
        text = f"/dev/shm is smaller than Ray's object store on {', '.join(small)}: Ray then uses the disk"
        fix = "start the container with `--shm-size`, in Kubernetes with an emptyDir of `medium: Memory` at /dev/shm"
        return look("shared memory", text, fix)
    least = min((node.facts["memory"]["shared"] or 0) for node in nodes)
    return fine("shared memory", f"at least {least / _GIB:.1f} GiB in /dev/shm, enough for the object store")


def _for_tasks(node: NodeAnswer) -> float:
    return node.resources.get("memory", 0.0)


def _object_store(node: NodeAnswer) -> float:
    return node.resources.get("object_store_memory", 0.0)
