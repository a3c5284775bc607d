"""The pods that a plan needs: which groups of workers, how large, how many, and on which nodes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from cluster.manifests.gpu_nodes import gpu_affinity
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_objects import INSTANCE_LABEL
from cluster.manifests.kubernetes_pods import PodSize, worker_template
from cluster.manifests.node_memory import needed_gib
from cluster.plan import Demand
from trainer.spec.deploy_kubernetes import NodesSpec

# Memory of a pod for each core where the plan knows no peak; the ratio of the clouds' general machines.
_GB_PER_CPU = 4


class WorkerGroup(NamedTuple):
    """Pods of one size on one kind of nodes."""

    name: str
    size: PodSize
    minimum: int
    """Pods that are always there."""
    maximum: int
    """Pods that the autoscaler may add up to."""
    nodes: NodesSpec
    affinity: dict[str, Any]
    serves: bool = False

    @property
    def scales(self) -> bool:
        """Whether the number of pods changes."""
        return self.minimum < self.maximum


def training_groups(inputs: ManifestInputs) -> list[WorkerGroup]:
    """Return the groups of a training or a search, and of the rows that are prepared for it.

    Every worker that the run starts with has its pod from the beginning: raymill refuses a run that does not fit on the
    nodes that are there. Workers beyond the minimum of an elastic training come and go, on spot nodes if there are any.
    """
    kubernetes, cluster = inputs.deploy.kubernetes, inputs.spec.cluster
    demand = next(demand for demand in inputs.demands if demand.stage in ("train", "tune"))
    per_pod = _processes_per_pod(demand)
    size = pod_size(inputs, demand, per_pod)
    least = math.ceil(demand.processes / per_pod)
    nodes = kubernetes.gpu if size.gpus else kubernetes.cpu
    affinity = _near_each_other(gpu_affinity(inputs, inputs.deploy.gpu_type) if size.gpus else {}, inputs)
    groups = [WorkerGroup("train", size, least, least, nodes, affinity)]
    most = math.ceil(cluster.max_workers * demand.processes / cluster.min_workers / per_pod)
    if most > least and inputs.spec.tune is None:
        spot = kubernetes.spot
        merged = nodes.model_copy(
            update={
                "labels": {**nodes.labels, **(spot.labels if spot else {})},
                "tolerations": (*nodes.tolerations, *(spot.tolerations if spot else ())),
            }
        )
        groups.append(WorkerGroup("spot" if spot else "elastic", size, 0, most - least, merged, affinity))
    if kubernetes.data_pods:
        data = PodSize(max(1, size.cpus), max(_GB_PER_CPU, size.cpus * _GB_PER_CPU))
        groups.append(WorkerGroup("data", data, 0, kubernetes.data_pods, kubernetes.cpu, {}))
    return groups


def serving_groups(inputs: ManifestInputs) -> list[WorkerGroup]:
    """Return the group of the endpoint's replicas. With `--ha` at least two, on different nodes."""
    kubernetes, serve = inputs.deploy.kubernetes, inputs.spec.serve
    demand = next(demand for demand in inputs.demands if demand.stage == "serve")
    per_pod = 1 if inputs.is_ha else _processes_per_pod(demand)
    size = pod_size(inputs, demand, per_pod)
    least = max(2 if inputs.is_ha else 1, math.ceil(serve.min_replicas / per_pod))
    most = max(least, math.ceil(serve.max_replicas / per_pod))
    nodes = kubernetes.gpu if size.gpus else kubernetes.cpu
    affinity = gpu_affinity(inputs, inputs.deploy.serve_gpu_type or inputs.deploy.gpu_type) if size.gpus else {}
    return [WorkerGroup("serve", size, least, most, nodes, affinity, serves=True)]


def pod_size(inputs: ManifestInputs, demand: Demand, processes: int) -> PodSize:
    """Return the size of a pod with some processes of a stage.

    Memory: what the processes need at their peak by the plan, Ray's own processes and its object store, or 4 GiB for
    each core if that is more.
    """
    cpus = max(1, math.ceil(demand.cpus_each * processes))
    gpus = math.ceil(demand.gpus_each * processes)
    memory = inputs.deploy.kubernetes.memory_gb or max(cpus * _GB_PER_CPU, needed_gib(demand.memory_each, processes))
    return PodSize(cpus, memory, gpus)


def worker_group(inputs: ManifestInputs, instance: str, group: WorkerGroup) -> dict[str, Any]:
    """Return a group as KubeRay's `workerGroupSpecs` has it."""
    return {
        "groupName": group.name,
        "replicas": group.minimum,
        "minReplicas": group.minimum,
        "maxReplicas": group.maximum,
        "rayStartParams": {},
        "template": worker_template(inputs, instance, group.size, group.nodes, group.affinity, serves=group.serves),
    }


def _processes_per_pod(demand: Demand) -> int:
    """Return how many processes share a pod: those that share one GPU, else one."""
    return int(1 / demand.gpus_each + 1e-9) if 0 < demand.gpus_each < 1 else 1


def _near_each_other(affinity: dict[str, Any], inputs: ManifestInputs) -> dict[str, Any]:
    """Return an affinity that also prefers the zone of the other workers: they exchange gradients at every step."""
    if inputs.spec.cluster.max_workers == 1:
        return affinity
    term = {
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "topology.kubernetes.io/zone",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "raymill", "ray.io/node-type": "worker"}},
        },
    }
    return {**affinity, "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}


def instance_selector(instance: str, node_type: str | None = None) -> dict[str, Any]:
    """Return the selector of the pods of a manifest: all, or those of the type `head` or `worker`."""
    labels = {INSTANCE_LABEL: instance}
    if node_type:
        labels["ray.io/node-type"] = node_type
    return {"matchLabels": labels}
