"""Who may reach the pods, and how many of them may be evicted at once."""

from __future__ import annotations

from typing import Any

from cluster.manifests.documents import Document
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_groups import WorkerGroup, instance_selector
from cluster.manifests.kubernetes_objects import NAME_LABEL, metadata
from cluster.manifests.kubernetes_pods import DASHBOARD_PORT, METRICS_PORT

# The label of KubeRay's operator in its Helm chart, whatever its namespace.
_OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}
_METRICS_PORTS = (METRICS_PORT, 44217, 44227)
_NAMESPACE = "kubernetes.io/metadata.name"


def network_policy(inputs: ManifestInputs, instance: str, *, serves: bool) -> dict[str, list[Document]]:
    """Return the file with the policy of a cluster's pods, or no file if the spec wants none.

    KubeRay's own policy (`networkPolicy` of a RayCluster) is alpha in 1.7 and off by default, so this one is
    Kubernetes' own.
    """
    kubernetes = inputs.deploy.kubernetes
    if not kubernetes.network_policy:
        return {}
    own_pods = {"podSelector": instance_selector(instance)}
    port = inputs.spec.serve.port
    ingress: list[dict[str, Any]] = [
        {"from": [own_pods]},
        {
            "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": _OPERATOR}}],
            "ports": _ports(DASHBOARD_PORT, *([port] if serves else [])),
        },
    ]
    if serves:
        # The nightly pipeline rolls new versions out from a cluster of its own.
        ingress.append({"from": [{"podSelector": {"matchLabels": NAME_LABEL}}], "ports": _ports(DASHBOARD_PORT)})
    if serves and kubernetes.client_namespaces:
        ingress.append({"from": [_namespace(name) for name in kubernetes.client_namespaces], "ports": _ports(port)})
    if kubernetes.monitoring:
        scraped = (*_METRICS_PORTS, *([port] if serves else []))
        ingress.append({"from": [_namespace(kubernetes.monitoring.namespace)], "ports": _ports(*scraped)})
    spec: dict[str, Any] = {
        "podSelector": instance_selector(instance),
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }
    if kubernetes.egress is not None:
        spec["policyTypes"].append("Egress")
        dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
        spec["egress"] = [{"to": [own_pods]}, {"ports": dns}]
        if kubernetes.egress:
            spec["egress"].append({"to": [{"ipBlock": {"cidr": network}} for network in kubernetes.egress]})
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(inputs, instance, instance),
        "spec": spec,
    }
    return {"network.yaml": [policy]}


def disruption_budgets(inputs: ManifestInputs, instance: str, groups: list[WorkerGroup]) -> dict[str, list[Document]]:
    """Return the file with the budgets of evictions: the head stays, and all replicas but one, and a training's workers.

    A head whose state is kept elsewhere may be evicted.
    `maxUnavailable` and percentages need owners with a scale, which KubeRay's have not, so the numbers are absolute.
    """
    serves = any(group.serves for group in groups)
    keeps_state = serves and (inputs.is_ha or inputs.deploy.kubernetes.head_state is not None)
    budgets = [] if keeps_state else [_budget(inputs, instance, "head", 1, {})]
    for group in groups:
        least = group.minimum - 1 if group.serves else group.minimum
        if least > 0:
            budgets.append(_budget(inputs, instance, group.name, least, {"ray.io/group": group.name}))
    return {"disruption.yaml": budgets} if budgets else {}


def _budget(inputs: ManifestInputs, instance: str, name: str, least: int, labels: dict[str, str]) -> Document:
    selector = instance_selector(instance, "worker" if labels else "head")
    selector["matchLabels"] |= labels
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(inputs, f"{instance}-{name}", instance),
        "spec": {"minAvailable": least, "selector": selector},
    }


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE: name}}}


def _ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]
