"""Pods of a Ray cluster: non-root, with a read-only root file system, and folders where Ray writes."""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster.manifests.environment import node_environment
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_objects import SPEC_FOLDER, claim_name, config_name, labels_of
from trainer.spec.deploy_kubernetes import NodesSpec, TolerationSpec

#: The user of cluster/images, and its home folder.
USER_ID = 1000
HOME = "/home/raymill"
#: Folder of replicas with the file of API keys.
KEYS_FOLDER = "/etc/raymill-keys"
#: What each container of a pod may do: the profile `restricted` of Kubernetes' pod security.
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
# Ray's port of the agent of each node, which answers whether the node is healthy, and of its metrics.
_AGENT_PORT, METRICS_PORT, DASHBOARD_PORT = 52365, 8080, 8265
_HEALTH = {"httpGet": {"path": "/api/healthz", "port": _AGENT_PORT}}


class PodSize(NamedTuple):
    """The resources of one pod. Requests and limits are equal, so the pod may get cores of its own (QoS Guaranteed)."""

    cpus: int
    memory_gb: int
    """GiB."""
    gpus: int = 0

    def resources(self, gpu_resource: str) -> dict[str, Any]:
        """Return requests and limits."""
        amounts = {"cpu": str(self.cpus), "memory": f"{self.memory_gb}Gi"}
        if self.gpus:
            amounts[gpu_resource] = str(self.gpus)
        return {"requests": amounts, "limits": dict(amounts)}


def head_template(inputs: ManifestInputs, instance: str, *, serves: bool, scales: bool) -> dict[str, Any]:
    """Return the pod of the head. Where jobs run, its container has the spec in `/etc/raymill`.

    `scales`: the autoscaler runs in it, which talks to Kubernetes.
    """
    kubernetes = inputs.deploy.kubernetes
    size = PodSize(kubernetes.head_cpus, kubernetes.head_memory_gb)
    template = _template(inputs, instance, "ray-head", size, kubernetes.cpu, {}, serves=serves)
    if scales:
        template["spec"]["automountServiceAccountToken"] = True
    container = template["spec"]["containers"][0]
    container["ports"] = [
        {"name": "gcs-server", "containerPort": 6379},
        {"name": "dashboard", "containerPort": DASHBOARD_PORT},
        {"name": "client", "containerPort": 10001},
        {"name": "metrics", "containerPort": METRICS_PORT},
        *_serve_ports(inputs, serves=serves),
        {"name": "as-metrics", "containerPort": 44217},
        {"name": "dash-metrics", "containerPort": 44227},
    ]
    if serves:
        return template
    container["volumeMounts"].append({"name": "spec", "mountPath": SPEC_FOLDER, "readOnly": True})
    template["spec"]["volumes"].append({"name": "spec", "configMap": {"name": config_name(instance)}})
    return template


def worker_template(
    inputs: ManifestInputs,
    instance: str,
    size: PodSize,
    nodes: NodesSpec,
    affinity: dict[str, Any],
    *,
    serves: bool,
) -> dict[str, Any]:
    """Return a pod of workers or replicas on a kind of nodes."""
    template = _template(inputs, instance, "ray-worker", size, nodes, affinity, serves=serves)
    container = template["spec"]["containers"][0]
    container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT}, *_serve_ports(inputs, serves=serves)]
    if serves:
        # Ready once the node's own proxy answers; the agent's health is the liveness probe's.
        container["readinessProbe"] = {
            "httpGet": {"path": "/-/healthz", "port": inputs.spec.serve.port},
            "periodSeconds": 5,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        }
        # The pod leaves its services before Ray learns of its end, so requests go elsewhere first.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": 10}}}
        template["spec"]["terminationGracePeriodSeconds"] = 30 + round(inputs.spec.serve.drain_s)
        template["spec"]["topologySpreadConstraints"] = _spread(inputs, instance)
    return template


def submitter_template(inputs: ManifestInputs, instance: str) -> dict[str, Any]:
    """Return the pod with which KubeRay submits a job and follows its log."""
    kubernetes = inputs.deploy.kubernetes
    template = _template(inputs, instance, "ray-job-submitter", PodSize(1, 1), kubernetes.cpu, {}, serves=False)
    container = template["spec"]["containers"][0]
    for key in ("livenessProbe", "readinessProbe", "envFrom"):
        container.pop(key, None)
    container["env"] = [variable for variable in container["env"] if variable["name"] in ("HOME", "RAY_AUTH_MODE")]
    amounts = {"cpu": "500m", "memory": "512Mi"}
    container["resources"] = {"requests": amounts, "limits": dict(amounts)}
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] == "tmp"]
    template["spec"]["volumes"] = [volume for volume in template["spec"]["volumes"] if volume["name"] == "tmp"]
    template["spec"]["restartPolicy"] = "Never"
    return template


def autoscaler_container() -> dict[str, Any]:
    """Return what KubeRay's autoscaler, a container of the head, may do and use."""
    amounts = {"cpu": "500m", "memory": "1Gi"}
    return {
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": CONTAINER_SECURITY,
        "env": [{"name": "HOME", "value": HOME}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": HOME}],
    }


def _template(
    inputs: ManifestInputs,
    instance: str,
    name: str,
    size: PodSize,
    nodes: NodesSpec,
    affinity: dict[str, Any],
    *,
    serves: bool,
) -> dict[str, Any]:
    kubernetes = inputs.deploy.kubernetes
    volumes, mounts = _folders(inputs, size, serves=serves)
    container = {
        "name": name,
        "image": inputs.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(inputs, serves=serves),
        "envFrom": [{"secretRef": {"name": secret}} for secret in kubernetes.environment_secrets] or None,
        "resources": size.resources(kubernetes.gpu.resource),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": mounts,
        "livenessProbe": {
            **_HEALTH,
            "initialDelaySeconds": 30,
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        },
        "readinessProbe": {**_HEALTH, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 10},
    }
    return {
        "metadata": {"labels": labels_of(inputs, instance)},
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "fsGroupChangePolicy": "OnRootMismatch",  # else each start walks through the whole storage
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "serviceAccountName": kubernetes.service_account,
            "automountServiceAccountToken": False,  # nothing in it talks to Kubernetes
            "imagePullSecrets": [{"name": secret} for secret in kubernetes.image_pull_secrets] or None,
            "priorityClassName": kubernetes.priority_class,
            "nodeSelector": dict(nodes.labels) or None,
            "tolerations": [_toleration(toleration) for toleration in nodes.tolerations] or None,
            "affinity": affinity or None,
            "containers": [container],
            "volumes": volumes,
        },
    }


def _folders(inputs: ManifestInputs, size: PodSize, *, serves: bool) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the volumes of a pod and where its container mounts them: all that is not read-only, and the storage."""
    storage = inputs.deploy.storage.path
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {}},  # Ray's logs and sockets, and what its object store spills
        {"name": "home", "emptyDir": {}},  # caches of the model hub and of libraries
        # Ray's object store. It counts as the container's memory.
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{size.memory_gb}Gi"}},
        {"name": "storage", "persistentVolumeClaim": {"claimName": claim_name(inputs)}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "home", "mountPath": HOME},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "storage", "mountPath": storage},
    ]
    keys = inputs.deploy.kubernetes.api_keys_secret
    if serves and keys:
        volumes.append({"name": "keys", "secret": {"secretName": keys, "defaultMode": 0o440}})
        mounts.append({"name": "keys", "mountPath": KEYS_FOLDER, "readOnly": True})
    return volumes, mounts


def _environment(inputs: ManifestInputs, *, serves: bool) -> list[dict[str, str]]:
    variables = {"HOME": HOME, **node_environment(inputs, None)}
    if serves:
        variables["PYTHONPATH"] = inputs.deploy.project  # modules of the user's own that the model names
    return [{"name": name, "value": value} for name, value in variables.items()]


def _serve_ports(inputs: ManifestInputs, *, serves: bool) -> list[dict[str, Any]]:
    return [{"name": "serve", "containerPort": inputs.spec.serve.port}] if serves else []


def _toleration(toleration: TolerationSpec) -> dict[str, str | None]:
    has_value = toleration.value is not None
    return {
        "key": toleration.key,
        "operator": "Equal" if has_value else "Exists",
        "value": toleration.value,
        "effect": toleration.effect,
    }


def _spread(inputs: ManifestInputs, instance: str) -> list[dict[str, Any]]:
    """Return how replicas are spread: over nodes, which `--ha` insists on, and over zones where that is possible."""
    selector = {"matchLabels": {"app.kubernetes.io/instance": instance, "ray.io/node-type": "worker"}}
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule" if inputs.is_ha else "ScheduleAnyway",
            "labelSelector": selector,
        },
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector,
        },
    ]
