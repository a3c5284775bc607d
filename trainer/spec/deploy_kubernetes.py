"""The section `deploy.kubernetes:` of a spec: Ray on Kubernetes, by KubeRay."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.spec.section import NonNegative, Positive, SpecSection

#: A name of a Kubernetes object: lower-case letters, digits and `-`.
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]+([.-]+[a-z0-9]+)*$", max_length=253)]
#: A label's value.
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]+([_.-]+[A-Za-z0-9]+)*)?$", max_length=63)]


class TolerationSpec(SpecSection):
    """A taint of nodes that pods accept."""

    key: str
    """The taint's key, for example `nvidia.com/gpu`."""
    value: str | None = None
    """The taint's value. Default: any."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect. Default: any."""


class NodesSpec(SpecSection):
    """A kind of nodes: which ones, and the taints that they may have."""

    labels: dict[str, LabelValue] = Field(default_factory=dict)
    """Labels that the nodes must have, for example `{cloud.google.com/gke-accelerator: nvidia-l4}`."""
    tolerations: tuple[TolerationSpec, ...] = ()
    """Taints of the nodes that pods accept."""


class GpuNodesSpec(NodesSpec):
    """Nodes with GPUs."""

    resource: str = "nvidia.com/gpu"
    """Name of the GPUs as a resource, as the device plugin counts them."""
    tolerations: tuple[TolerationSpec, ...] = (TolerationSpec(key="nvidia.com/gpu"),)
    """Taints of the nodes that pods accept."""


class QueueSpec(SpecSection):
    """The queue in which jobs wait until there is room for all of their pods. Exactly one of the two."""

    kueue: ObjectName | None = None
    """Name of a LocalQueue of Kueue in the namespace."""
    volcano: ObjectName | None = None
    """Name of a Queue of Volcano. KubeRay's operator must run with `batchScheduler.name=volcano`."""

    @model_validator(mode="after")
    def _check_one(self) -> QueueSpec:
        if (self.kueue is None) == (self.volcano is None):
            raise ValueError("queue needs exactly one of `kueue` and `volcano`")
        return self


class HeadStateSpec(SpecSection):
    """Where the head's state is kept, so that an endpoint survives the loss of the head."""

    backend: Literal["redis", "rocksdb"] = "redis"
    """`redis`: a Redis of your own; `rocksdb`: a volume of the head, which KubeRay's operator makes if its feature gate
    `GCSFaultToleranceEmbeddedStorage` is on (alpha in KubeRay 1.7)."""
    redis_address: str = "redis:6379"
    """Address of the Redis."""
    redis_password_secret: ObjectName | None = "redis-password"
    """Secret whose key `password` is the Redis' password; null: it has none."""
    volume_gb: Positive = 1
    """`rocksdb`: size of the volume."""


class MonitoringSpec(SpecSection):
    """Prometheus' operator, which must be installed."""

    labels: dict[str, LabelValue] = Field(default_factory=lambda: {"release": "prometheus"})
    """Labels by which your Prometheus selects PodMonitors and ScrapeConfigs."""
    namespace: ObjectName = "monitoring"
    """Namespace of Prometheus, which may then reach the metrics."""
    interval_s: Positive = 15
    """Seconds between two scrapes."""
    key_secret: ObjectName | None = None
    """Secret whose key `key` is an API key for the endpoint's metrics. An endpoint with API keys needs it."""


class KubernetesSpec(SpecSection):
    """Ray on Kubernetes, by KubeRay's operator."""

    namespace: ObjectName = "raymill"
    """Namespace of all objects. It must exist."""
    claim: ObjectName | None = None
    """PersistentVolumeClaim of the shared storage, which every node can mount for writing (ReadWriteMany). Default:
    `raymill-storage`, which the kind `kubernetes-storage` makes."""
    storage_class: ObjectName | None = None
    """StorageClass of `raymill-storage`. Default: the cluster's own, which must offer ReadWriteMany."""
    storage_gb: Positive = 200
    """Size of `raymill-storage`."""
    environment_secrets: tuple[ObjectName, ...] = ()
    """Secrets whose keys become environment variables, for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for
    `s3://`, HF_TOKEN, or MLFLOW_TRACKING_TOKEN."""
    token_secret: ObjectName | None = None
    """Secret whose key `auth_token` is Ray's token. Default: KubeRay makes one for each cluster."""
    api_keys_secret: ObjectName | None = None
    """Secret whose key `keys.json` is a file of `raymill keys`. An endpoint needs it, or `serve.insecure`."""
    image_pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets with which nodes pull the image."""
    service_account: ObjectName | None = None
    """ServiceAccount of all pods, for example one with a role of a cloud. Default: the namespace's own."""
    priority_class: ObjectName | None = None
    """PriorityClass of all pods."""
    labels: dict[str, LabelValue] = Field(default_factory=dict)
    """Labels of all objects and pods, for example of a team."""
    cpu: NodesSpec = Field(default_factory=NodesSpec)
    """Nodes of the head and of pods without GPUs."""
    gpu: GpuNodesSpec = Field(default_factory=GpuNodesSpec)
    """Nodes of pods with GPUs. Without labels, `deploy.gpu_type` is looked up in the labels of NVIDIA's GPU feature
    discovery."""
    spot: NodesSpec | None = None
    """Nodes that may be taken away. An elastic training (`cluster.workers: [1, 4]`) puts its workers beyond the minimum
    there. Default: on the same nodes as the others."""
    head_cpus: Positive = 2
    """CPU cores of the head, on which no training runs, but the job's own process."""
    head_memory_gb: Positive = 8
    """Memory of the head in GiB."""
    memory_gb: Positive | None = None
    """Memory of each pod with workers or replicas in GiB. Default: what the plan needs, and at least 4 for each core."""
    data_pods: NonNegative = 0
    """Pods without GPUs that may join while rows are prepared, beside those that a training needs."""
    idle_s: Positive = 120
    """Seconds after which a pod beyond the minimum is given back if nothing runs on it."""
    queue: QueueSpec | None = None
    """The queue in which jobs wait until there is room for all of their pods."""
    head_state: HeadStateSpec | None = None
    """Where the head's state is kept, so that an endpoint survives the loss of the head. `--ha` needs it; its default is
    then a Redis at `redis:6379`."""
    gateway_class: ObjectName | None = None
    """GatewayClass with which a new version of a RayService takes over step by step. Default: at once, when its cluster
    is ready."""
    monitoring: MonitoringSpec | None = None
    """Prometheus' operator, for which the manifest then has PodMonitors, and a ScrapeConfig for the endpoint."""
    network_policy: bool = True
    """Whether pods may be reached only by their own cluster, KubeRay's operator, Prometheus and `client_namespaces`."""
    client_namespaces: tuple[ObjectName, ...] = ()
    """Namespaces whose pods may send requests to the endpoint, for example that of an ingress controller."""
    egress: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")], ...] | None = None
    """Networks that pods may reach, beside their own cluster and DNS, for example `[10.0.0.0/8]`. Include the API server
    if pods come and go. Default: all."""
    retries: NonNegative = 1
    """How many times a job that failed starts again on a new cluster."""
    deadline_s: Positive | None = None
    """Seconds after which a job is ended. Default: none."""
    keep_s: NonNegative = 300
    """Seconds for which the cluster of a job stays after the end, for its logs."""
    endpoint: str | None = None
    """Address of the Ray that runs the endpoint, for example `http://NAME-head-svc.NAMESPACE:8265`. The nightly
    pipeline then rolls the champion out there. Default: the alias moves, and nothing is rolled out."""
