"""Fit the work of a spec onto the nodes: choose the sizes that the spec leaves open, and add up what each stage needs."""

from __future__ import annotations

from typing import NamedTuple

from cluster.errors import ModelError, ResourceError, UserError
from cluster.plan import Demand, Node, capacity, check_fits
from trainer.data.prepared import Prepared
from trainer.planning.remedies import list_remedies
from trainer.planning.row_facts import RowFacts, facts_of_prepared, facts_of_spec
from trainer.planning.run_memory import RunMemory, run_memory
from trainer.planning.term import Estimate
from trainer.spec.run import RunSpec
from trainer.spec.serve import ServeSpec

#: The names of the stage that trains, without and with a search.
TRAINING_STAGES = ("train", "tune")
_NONE = Estimate()


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


def list_demands(
    spec: RunSpec, plan: ResourcePlan, *, serving: bool = True, memory: RunMemory | None = None
) -> list[Demand]:
    """Return the resources that each stage needs at once, in the order of the stages.

    `memory` is that of the stages; by default, what the spec alone says about it.
    """
    memory = memory or estimate_memory(spec)
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
        _with_memory(Demand("prepare", "reading and encoding", 1, 1, 0, "cluster.cpus"), memory.prepare),
        _with_memory(
            Demand(stage, processes, trials * workers, cpus + ray_data_cpus, gpus, key),
            memory.train.main,
            memory.train.gpu,
        ),
        _with_memory(Demand("evaluate", "scoring the held-out rows", 1, cpus, gpus, key), memory.evaluate),
    ]
    if serving:
        demands.append(_with_memory(serving_demand(spec.serve), memory.serve))
    return demands


def check_training_fits(spec: RunSpec, prepared: Prepared, plan: ResourcePlan, nodes: list[Node]) -> None:
    """Raise `ResourceError`, with what would fit, if the training of `spec` on these rows takes more memory than there is.

    Models that must be traced are checked by `raymill plan` only, except for their weights.
    """
    try:
        facts = facts_of_prepared(spec, prepared, count_tokens=False)
        try:
            _check_stage(spec, facts, plan, nodes)
        except ResourceError:  # once more with the tokens that the rows use: the embedding may be smaller
            facts = facts_of_prepared(spec, prepared)
            _check_stage(spec, facts, plan, nodes)
    except (ModelError, OSError):
        return  # the training itself says what is wrong with its model


def _check_stage(spec: RunSpec, facts: RowFacts, plan: ResourcePlan, nodes: list[Node]) -> None:
    memory = run_memory(spec, facts, trace=False)
    demands = [demand for demand in list_demands(spec, plan, memory=memory) if demand.stage in TRAINING_STAGES]
    check_fits(demands, nodes, lambda demand: list_remedies(spec, facts, nodes, demand))


def estimate_memory(spec: RunSpec) -> RunMemory:
    """Return the memory of the stages as far as the spec alone tells it. It takes milliseconds and raises nothing."""
    try:
        return run_memory(spec, facts_of_spec(spec), trace=False)
    except (UserError, OSError, ValueError):  # the run itself says what is wrong with the base model
        return RunMemory.unknown()


def _with_memory(demand: Demand, main: Estimate, gpu: Estimate = _NONE) -> Demand:
    return demand._replace(
        memory_each=main.bytes,
        gpu_memory_each=gpu.bytes,
        least_memory_each=main.least_bytes,
        least_gpu_memory_each=gpu.least_bytes,
    )


def serving_demand(serve: ServeSpec) -> Demand:
    """Return the CPUs and GPUs that an endpoint needs with its largest number of replicas."""
    most = serve.max_replicas
    return Demand("serve", f"{most} replicas", most, serve.cpus_per_replica, serve.gpus_per_replica, "serve.replicas")
