"""Parts of every Kubernetes manifest: names, labels, and the spec as a ConfigMap."""

from __future__ import annotations

import hashlib
from typing import Any

from cluster.manifests.documents import Document
from cluster.manifests.inputs import ManifestInputs

#: Folder of the head that holds the spec, and the spec's path there.
SPEC_FOLDER = "/etc/raymill"
SPEC_PATH = f"{SPEC_FOLDER}/run.yaml"
#: The claim of the shared storage if the spec names none. All manifests of a namespace share it.
DEFAULT_CLAIM = "raymill-storage"
#: The label by which policies and monitors select the pods of one manifest.
INSTANCE_LABEL = "app.kubernetes.io/instance"
#: The label of all of raymill's pods.
NAME_LABEL = {"app.kubernetes.io/name": "raymill"}


def object_name(inputs: ManifestInputs, suffix: str, limit: int) -> str:
    """Return the spec's name with a suffix, in at most `limit` characters: the end of a longer name becomes a digest.

    KubeRay appends parts of its own, and limits names for that.
    """
    room = limit - len(suffix)
    name = inputs.name
    if len(name) > room:
        digest = hashlib.sha256(name.encode()).hexdigest()[:6]
        name = f"{name[: room - 7].rstrip('-')}-{digest}"
    return name + suffix


def labels_of(inputs: ManifestInputs, instance: str) -> dict[str, str]:
    """Return the labels of an object and of its pods."""
    return {
        **NAME_LABEL,
        INSTANCE_LABEL: instance,
        "app.kubernetes.io/managed-by": "raymill",
        **inputs.deploy.kubernetes.labels,
    }


def metadata(
    inputs: ManifestInputs, name: str, instance: str, *, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the metadata of an object that belongs to `instance`."""
    return {
        "name": name,
        "namespace": inputs.deploy.kubernetes.namespace,
        "labels": {**labels_of(inputs, instance), **(labels or {})},
    }


def queue_labels(inputs: ManifestInputs) -> dict[str, str]:
    """Return the labels that put an object into the spec's queue."""
    queue = inputs.deploy.kubernetes.queue
    if queue is None:
        return {}
    if queue.kueue is not None:
        return {"kueue.x-k8s.io/queue-name": queue.kueue}
    return {"ray.io/scheduler-name": "volcano", "volcano.sh/queue-name": str(queue.volcano)}


def spec_config_map(inputs: ManifestInputs, instance: str) -> Document:
    """Return the ConfigMap with the spec as the cluster runs it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(inputs, config_name(instance), instance),
        "data": {"run.yaml": inputs.spec_text},
    }


def config_name(instance: str) -> str:
    """Return the name of the ConfigMap with the spec."""
    return f"{instance}-spec"


def claim_name(inputs: ManifestInputs) -> str:
    """Return the name of the claim of the shared storage."""
    return inputs.deploy.kubernetes.claim or DEFAULT_CLAIM
