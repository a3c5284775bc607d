"""Cores: what Ray schedules on a node, what its container may use, and how many threads libraries start there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cluster.environment_checks import Check
from cluster.machine import count_cores
from cluster.node_checks.answers import NodeAnswer, fine, look, name_list, where, wrong
from cluster.node_checks.raylet import raylet_environment


def read_cores() -> dict[str, Any]:
    """Return the cores that this node may use in all, those that libraries count, and their number of threads."""
    visible = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = raylet_environment().get("OMP_NUM_THREADS", "")
    return {"usable": count_cores(), "visible": visible, "threads": int(threads) if threads.isdigit() else None}


def check_cores(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check Ray's CPUs against the cores, and a quota against the threads that libraries start."""
    checks = []
    crowded = where(nodes, lambda node: node.resources.get("CPU", 0) > node.facts["cores"]["usable"])
    if crowded:
        text = f"Ray has more CPUs than there are cores on {name_list(crowded)}"
        checks.append(look("cores", text, "start the node with `--num-cpus` = its cores"))
    cut = where(nodes, _has_too_many_threads)
    if cut:
        text = f"a quota gives fewer cores than libraries count on {name_list(cut)}: their threads stop each other"
        fix = (
            "set OMP_NUM_THREADS to the quota where Ray is started, or give the container whole cores (a cpuset; in "
            "Kubernetes the static CPU manager)"
        )
        checks.append(look("CPU quota", text, fix))
    if not checks:
        total = sum(node.facts["cores"]["usable"] for node in nodes)
        checks.append(fine("cores", f"{total} on {len(nodes)} nodes; no quota below the number of threads"))
    return checks


def check_packing(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Say on which node Ray puts workers: as many as fit onto one, before it uses the next."""
    cpus = [node.resources.get("CPU", 0.0) for node in nodes if node.resources.get("CPU", 0.0) > 0]
    if not cpus:
        fix = "start nodes for work with `--num-cpus` of 1 or more"
        return [wrong("workers on a node", "no node has CPUs for tasks", fix)]
    if len(cpus) == 1:
        return []
    most = max(cpus)
    text = f"Ray fills a node before it uses the next: up to {most:g} workers of 1 CPU on one node"
    return [fine("workers on a node", text, f"for one worker a node, set cluster.cpus_per_worker: {min(cpus):g}")]


def _has_too_many_threads(node: NodeAnswer) -> bool:
    cores = node.facts["cores"]
    return bool(cores["usable"] < (cores["threads"] or cores["visible"]) and cores["usable"] < cores["visible"])
