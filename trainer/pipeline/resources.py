"""Fit the work of a spec onto the nodes: choose the sizes that the spec leaves open, and add up what each stage needs."""

from __future__ import annotations

from typing import NamedTuple

from cluster.plan import Demand, Node, capacity
from trainer.spec.run import RunSpec
from trainer.spec.serve import ServeSpec


class ResourcePlan(NamedTuple):
    """The sizes that the spec leaves open."""

    cpus_per_worker: int
    trials_at_once: int
    """1 without a search."""


def plan_resources(spec: RunSpec, nodes: list[Node]) -> ResourcePlan:
    """Return sizes that use the nodes fully.

    A search gets many trials with few cores each: on 2 cores, two trials of 1 core each train 1.3 times as many rows/s
    as one after the other with 2 cores.
    """
    gpus = spec.cluster.gpus_per_worker
    max_trials = (spec.tune.max_concurrent or spec.tune.n_trials) if spec.tune else 1
    cpus = spec.cluster.cpus_per_worker
    if cpus is None:
        total = max(1, int(sum(node.cpus for node in nodes)) - _ray_data_cpus(spec))
        by_gpu = capacity(nodes, 0, gpus) if gpus else total
        # An elastic training starts with as many workers as fit now.
        workers = max(spec.cluster.min_workers, min(spec.cluster.max_workers, total, by_gpu))
        trials = max(1, min(max_trials, min(total, by_gpu) // workers))
        largest = int(max((node.cpus for node in nodes if node.gpus >= gpus), default=1)) - _ray_data_cpus(spec)
        cpus = max(1, min(largest, total // (trials * workers)))
    trials_that_fit = capacity(nodes, cpus, gpus) // spec.cluster.min_workers
    return ResourcePlan(cpus_per_worker=cpus, trials_at_once=max(1, min(max_trials, trials_that_fit)))


def _ray_data_cpus(spec: RunSpec) -> int:
    """Return the cores to leave for Ray Data while it feeds the workers; without a core it waits forever."""
    return 1 if spec.data.mode == "streaming" else 0


def list_demands(spec: RunSpec, plan: ResourcePlan, *, serving: bool = True) -> list[Demand]:
    """Return the resources that each stage needs at once, in the order of the stages."""
    workers, gpus = spec.cluster.min_workers, spec.cluster.gpus_per_worker
    cpus, trials = float(plan.cpus_per_worker), plan.trials_at_once
    ray_data_cpus = _ray_data_cpus(spec) / workers
    key_of_a_worker = "cluster.gpus_per_worker" if gpus else "cluster.cpus_per_worker"
    key = "cluster.workers" if workers > 1 else key_of_a_worker
    if spec.tune:
        stage, processes = "tune", f"{trials} trials at a time with {workers} workers each"
    else:
        at_least = "at least " if spec.cluster.max_workers > workers else ""
        reading = " and the reading for them" if ray_data_cpus else ""
        stage, processes = "train", f"{at_least}{workers} workers{reading}"
    demands = [
        Demand("prepare", "reading and encoding", 1, 1, 0, "cluster.cpus"),
        Demand(stage, processes, trials * workers, cpus + ray_data_cpus, gpus, key),
        Demand("evaluate", "scoring the held-out rows", 1, cpus, gpus, key),
    ]
    if serving:
        demands.append(serving_demand(spec.serve))
    return demands


def serving_demand(serve: ServeSpec) -> Demand:
    """Return the resources that an endpoint needs with its largest number of replicas."""
    most = serve.max_replicas
    return Demand("serve", f"{most} replicas", most, serve.cpus_per_replica, serve.gpus_per_replica, "serve.replicas")
