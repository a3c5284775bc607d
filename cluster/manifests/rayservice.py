"""Kind `rayservice`: the endpoint of the spec's model, which Kubernetes keeps alive."""

from __future__ import annotations

from typing import Any

from cluster.errors import SpecError
from cluster.manifests.documents import Rendered, to_yaml
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_access import disruption_budgets, network_policy
from cluster.manifests.kubernetes_cluster import ray_cluster
from cluster.manifests.kubernetes_groups import WorkerGroup, serving_groups
from cluster.manifests.kubernetes_monitors import monitors
from cluster.manifests.kubernetes_objects import metadata, object_name, queue_labels
from cluster.manifests.kubernetes_pods import KEYS_FOLDER
from cluster.manifests.serve_config import may_stream, remote_serve
from serve.deploy_config import build_deploy_config
from trainer.spec.serve import ServeSpec

_LONGEST_NAME = 47
# Ray Serve's name of the deployment: the class in serve/deployment.py.
_DEPLOYMENT = "EndpointReplica"
# A new version of the cluster takes over in steps of this share of the requests, each lasting this long.
_STEP_PERCENT, _STEP_S = 20, 30


def render(inputs: ManifestInputs) -> Rendered:
    """Return the manifests of the endpoint. Raises `SpecError` if everybody could send requests."""
    name = object_name(inputs, "", _LONGEST_NAME)
    groups = serving_groups(inputs)
    service = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": metadata(inputs, name, name, labels=queue_labels(inputs)),
        "spec": {
            "serveConfigV2": to_yaml([serve_config(inputs, groups[0])]).removeprefix("---\n"),
            "upgradeStrategy": _upgrade(inputs),
            # The head takes no requests, so its loss costs none.
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": ray_cluster(inputs, name, groups, serves=True),
        },
    }
    return {
        **network_policy(inputs, name, serves=True),
        **disruption_budgets(inputs, name, groups),
        **monitors(inputs, name, serves=True),
        "rayservice.yaml": [service],
    }


def serve_config(inputs: ManifestInputs, group: WorkerGroup) -> dict[str, Any]:
    """Return the config of Ray Serve: the champion of the spec's model, with at least as many replicas as pods."""
    serve = remote_serve(inputs)
    changes: dict[str, Any] = {"host": "0.0.0.0"}  # the service reaches the pods' own addresses
    if inputs.deploy.kubernetes.api_keys_secret:
        changes["keys"] = f"{KEYS_FOLDER}/keys.json"
    elif not serve.keys and not serve.insecure:
        raise SpecError(
            "the endpoint would listen on all addresses of its pods without API keys",
            "make a Secret with the file of `raymill keys add` (`kubectl create secret generic NAME --from-file=keys.json`) "
            "and set `deploy.kubernetes.api_keys_secret: NAME`, or set `serve.insecure: true`",
        )
    if inputs.is_ha and serve.max_replicas < group.minimum:
        changes["replicas"] = group.minimum
    elif inputs.is_ha and serve.min_replicas < group.minimum:
        changes["replicas"] = [group.minimum, serve.max_replicas]
    model = f"{inputs.spec.name}@{inputs.spec.promote.alias}"
    changed = serve.model_dump(mode="json", exclude_unset=True) | changes
    config = build_deploy_config(model, inputs.storage, ServeSpec.model_validate(changed), streams=may_stream(inputs))
    if inputs.is_ha:
        # Two replicas on one node would fall together.
        config["applications"][0]["deployments"] = [{"name": _DEPLOYMENT, "max_replicas_per_node": 1}]
    return config


def _upgrade(inputs: ManifestInputs) -> dict[str, Any]:
    gateway = inputs.deploy.kubernetes.gateway_class
    if gateway is None:
        return {"type": "NewCluster"}
    options = {
        "gatewayClassName": gateway,
        "maxSurgePercent": 100,
        "stepSizePercent": _STEP_PERCENT,
        "intervalSeconds": _STEP_S,
    }
    return {"type": "NewClusterWithIncrementalUpgrade", "clusterUpgradeOptions": options}
