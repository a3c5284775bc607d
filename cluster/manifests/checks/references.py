"""What the objects of one manifest say about each other: namespaces, names, selectors, ports and mounted objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.manifests.checks.pod_rules import Pod

# (Kind, list) -> its values, which Kubernetes' schemas have as any text.
_VALUES = {
    ("NetworkPolicy", "policyTypes"): {"Ingress", "Egress"},
    ("PersistentVolumeClaim", "accessModes"): {"ReadWriteMany"},
}
# Labels that KubeRay gives its pods.
_NODE_TYPE, _GROUP, _CLUSTER = "ray.io/node-type", "ray.io/group", "ray.io/cluster"


def check_references(documents: list[dict[str, Any]], pods: list[Pod]) -> list[str]:
    """Return contradictions among the objects of a manifest, one sentence each. `pods` are its pod templates."""
    problems = [*_identity_problems(documents)]
    labels = [_pod_labels(pod) for pod in pods]
    for document in documents:
        name = f"{document.get('kind')} {document['metadata'].get('name')}"
        problems += [f"{name}: {problem}" for problem in _selector_problems(document, labels)]
        problems += [f"{name}: {problem}" for problem in _value_problems(document)]
        if document.get("kind") == "PodDisruptionBudget":
            problems += [f"{name}: {problem}" for problem in _budget_problems(document["spec"])]
        if document.get("kind") == "PodMonitor":
            problems += [f"{name}: {problem}" for problem in _port_problems(document["spec"], pods, labels)]
    for pod in pods:
        problems += _mount_problems(pod, documents)
        problems += _spread_problems(pod)
    return problems


def _identity_problems(documents: list[dict[str, Any]]) -> Iterator[str]:
    seen: set[tuple[Any, Any]] = set()
    for document in documents:
        identity = document.get("kind"), document["metadata"].get("name")
        if identity in seen:
            yield f"{identity[0]} {identity[1]} occurs twice"
        seen.add(identity)
    namespaces = {document["metadata"].get("namespace") for document in documents}
    if len(namespaces) > 1 or None in namespaces:
        yield f"metadata.namespace: the objects are in {len(namespaces)} namespaces: {sorted(map(str, namespaces))}"


def _pod_labels(pod: Pod) -> dict[str, str]:
    """Return the labels of a pod, with those that KubeRay adds."""
    labels = dict((pod.template.get("metadata") or {}).get("labels") or {})
    if pod.runs_ray:
        group = pod.where.rpartition(".")[2]
        is_head = group == "headGroupSpec"
        labels |= {_NODE_TYPE: "head" if is_head else "worker", _GROUP: "headgroup" if is_head else group}
    return labels


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def _selector_problems(document: dict[str, Any], labels: list[dict[str, str]]) -> Iterator[str]:
    """Yield a selector of a policy, a budget or a monitor that selects none of the manifest's pods."""
    spec = document.get("spec") or {}
    key = {"NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector", "PodMonitor": "selector"}.get(
        document.get("kind", "")
    )
    if key is None:
        return
    selector = spec.get(key) or {}
    if not selector.get("matchLabels"):
        yield f"{key} selects every pod of the namespace"
    elif not any(_matches(selector, pod) for pod in labels):
        yield f"{key}={selector['matchLabels']} selects no pod of this manifest"


def _value_problems(document: dict[str, Any]) -> Iterator[str]:
    for (kind, key), values in _VALUES.items():
        wrong = set((document.get("spec") or {}).get(key, ())) - values if document.get("kind") == kind else set()
        if wrong:
            yield f"{key}: {', '.join(sorted(wrong))} is not among {', '.join(sorted(values))}"


def _budget_problems(spec: dict[str, Any]) -> Iterator[str]:
    if "maxUnavailable" in spec or not isinstance(spec.get("minAvailable"), int):
        yield "a pod of KubeRay has no owner with a scale, so only minAvailable with a number works"


def _port_problems(spec: dict[str, Any], pods: list[Pod], labels: list[dict[str, str]]) -> Iterator[str]:
    selected = [pod for pod, own in zip(pods, labels, strict=True) if _matches(spec.get("selector") or {}, own)]
    names = {
        port.get("name")
        for pod in selected
        for container in pod.template["spec"].get("containers", [])
        for port in container.get("ports") or []
    }
    for endpoint in spec.get("podMetricsEndpoints") or []:
        if endpoint.get("port") not in names:
            yield f"no pod that it selects has a port called {endpoint.get('port')}"


def _mount_problems(pod: Pod, documents: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a ConfigMap that a pod mounts and no file has. Secrets and claims are made by others."""
    maps = [str(document["metadata"].get("name")) for document in documents if document.get("kind") == "ConfigMap"]
    for volume in pod.template["spec"].get("volumes") or []:
        name = (volume.get("configMap") or {}).get("name")
        if name is not None and name not in maps:
            yield f"{pod.where}.volumes.{volume['name']}: there is no ConfigMap {name} in this manifest"


def _spread_problems(pod: Pod) -> Iterator[str]:
    labels = _pod_labels(pod)
    for constraint in pod.template["spec"].get("topologySpreadConstraints") or []:
        if not _matches(constraint.get("labelSelector") or {}, labels):
            yield f"{pod.where}.topologySpreadConstraints: {constraint.get('topologyKey')} does not count the pod itself"
