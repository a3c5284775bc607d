"""How a spec's work is laid over the nodes there are: sizes worked out, demands added up."""

from __future__ import annotations

from typing import NamedTuple

from cluster.plan import Demand, Node, places
from trainer.spec.run import RunSpec, Serve


class Layout(NamedTuple):
    """Sizes that the spec left open."""

    cpus_per_worker: int
    trials_at_once: int
    """1 where nothing is searched."""


def layout(spec: RunSpec, nodes: list[Node]) -> Layout:
    """Return sizes that use the nodes fully. On 2 cores two trials of 1 core each train 1.3 times as many rows/s as
    one after the other with 2 cores."""
    gpus = spec.cluster.gpus_per_worker
    wanted = (spec.tune.max_concurrent or spec.tune.n_trials) if spec.tune else 1
    cpus = spec.cluster.cpus_per_worker
    if cpus is None:
        total = max(1, int(sum(node.cpus for node in nodes)) - _for_ray_data(spec))
        by_gpu = places(nodes, 0, gpus) if gpus else total
        # Of a training that may shrink, as many as there is room for now.
        workers = max(spec.cluster.fewest_workers, min(spec.cluster.most_workers, total, by_gpu))
        at_once = max(1, min(wanted, min(total, by_gpu) // workers))
        largest = int(max((node.cpus for node in nodes if node.gpus >= gpus), default=1)) - _for_ray_data(spec)
        cpus = max(1, min(largest, total // (at_once * workers)))
    fits = places(nodes, cpus, gpus) // spec.cluster.fewest_workers
    return Layout(cpus_per_worker=cpus, trials_at_once=max(1, min(wanted, fits)))


def _for_ray_data(spec: RunSpec) -> int:
    """Cores that must be left for Ray Data while it feeds the workers: without any it would wait for ever."""
    return 1 if spec.data.mode == "streaming" else 0


def demands(spec: RunSpec, sizes: Layout, *, serving: bool = True) -> list[Demand]:
    """Return what each stage will hold at the same time, in the order they run."""
    workers = spec.cluster.fewest_workers
    key = "cluster.workers" if workers > 1 else "cluster.cpus_per_worker"
    if spec.cluster.gpus_per_worker:
        key = "cluster.workers" if workers > 1 else "cluster.gpus_per_worker"
    streamed = _for_ray_data(spec) / workers
    each = (float(sizes.cpus_per_worker), spec.cluster.gpus_per_worker)
    trials = sizes.trials_at_once
    stage = "tune" if spec.tune else "train"
    what = (
        f"{trials} trials at a time with {workers} workers each"
        if spec.tune
        else f"{'at least ' * (spec.cluster.most_workers > workers)}{workers} workers"
        f"{' and the reading for them' if streamed else ''}"
    )
    found = [
        Demand("prepare", "reading and encoding", 1, 1, 0, "cluster.cpus"),
        Demand(stage, what, trials * workers, each[0] + streamed, each[1], key),
        Demand("evaluate", "scoring the held-out rows", 1, *each, key),
    ]
    if serving:
        found.append(serving_demand(spec.serve))
    return found


def serving_demand(serve: Serve) -> Demand:
    """Return what an endpoint holds with the most replicas it may have."""
    most = serve.most_replicas
    return Demand("serve", f"{most} replicas", most, serve.cpus_per_replica, serve.gpus_per_replica, "serve.replicas")
