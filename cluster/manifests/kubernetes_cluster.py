"""A Ray cluster as KubeRay describes it, which all of its kinds hold: `RayClusterSpec`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from cluster.errors import SpecError
from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_access import disruption_budgets, network_policy
from cluster.manifests.kubernetes_groups import WorkerGroup, worker_group
from cluster.manifests.kubernetes_monitors import monitors
from cluster.manifests.kubernetes_objects import spec_config_map
from cluster.manifests.kubernetes_pods import autoscaler_container, head_template
from trainer.spec.deploy_kubernetes import HeadStateSpec

_CPUS_OF_THE_HEAD_FOR_RAY = "0"  # no worker and no replica there: the head's loss must not be theirs too


def training_files(inputs: ManifestInputs, name: str, groups: list[WorkerGroup]) -> Rendered:
    """Return the files beside a cluster that trains: spec, policy, budgets and monitors."""
    return {
        "config.yaml": [spec_config_map(inputs, name)],
        **network_policy(inputs, name, serves=False),
        **disruption_budgets(inputs, name, groups),
        **monitors(inputs, name, serves=False),
    }


def ray_cluster(
    inputs: ManifestInputs, instance: str, groups: list[WorkerGroup], *, serves: bool = False
) -> dict[str, Any]:
    """Return a `RayClusterSpec` with a head and groups of workers.

    Raises `SpecError` if the queue cannot admit what the autoscaler may add.
    """
    kubernetes = inputs.deploy.kubernetes
    scales = any(group.scales for group in groups)
    if scales and kubernetes.queue is not None:
        names = ", ".join(f"{group.name} ({group.minimum} to {group.maximum} pods)" for group in groups if group.scales)
        raise SpecError(
            f"deploy.kubernetes.queue admits all pods of a cluster at once, but the autoscaler adds pods later: {names}",
            "set `cluster.workers` and `serve.replicas` to one number and `deploy.kubernetes.data_pods` to 0, or remove "
            "the queue",
        )
    return {
        "rayVersion": _ray_version(),
        "enableInTreeAutoscaling": scales,
        "autoscalerOptions": _autoscaler(inputs) if scales else None,
        # Without it, everybody who reaches the dashboard runs code in the cluster. KubeRay makes the token's secret.
        "authOptions": {"mode": "token", "secretName": kubernetes.token_secret},
        "gcsFaultToleranceOptions": _head_state(inputs) if serves else None,
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": {"num-cpus": _CPUS_OF_THE_HEAD_FOR_RAY, "dashboard-host": "0.0.0.0"},
            "template": head_template(inputs, instance, serves=serves, scales=scales),
        },
        "workerGroupSpecs": [worker_group(inputs, instance, group) for group in groups],
    }


def _ray_version() -> str:
    """Return the version of Ray, which must be that of the image, up to its fixes: 2.60.0."""
    major, minor = version("ray").split(".")[:2]
    return f"{major}.{minor}.0"


def _autoscaler(inputs: ManifestInputs) -> dict[str, Any]:
    return {
        "version": "v2",
        "idleTimeoutSeconds": inputs.deploy.kubernetes.idle_s,
        "upscalingMode": "Default",
        **autoscaler_container(),
    }


def _head_state(inputs: ManifestInputs) -> dict[str, Any] | None:
    """Return where the head's state is kept; None: a head that is lost takes its cluster with it."""
    state = inputs.deploy.kubernetes.head_state or (HeadStateSpec() if inputs.is_ha else None)
    if state is None:
        return None
    if state.backend == "rocksdb":
        return {"backend": "rocksdb", "storage": {"size": f"{state.volume_gb}Gi"}}
    secret = state.redis_password_secret
    password = {"valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}} if secret else None
    return {"backend": "redis", "redisAddress": state.redis_address, "redisPassword": password}
