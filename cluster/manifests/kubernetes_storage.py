"""Kind `kubernetes-storage`: the volume that all other kinds on Kubernetes share.

It is a manifest of its own: whoever deletes it deletes all models.
"""

from __future__ import annotations

from cluster.errors import SpecError
from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_objects import DEFAULT_CLAIM, NAME_LABEL


def render(inputs: ManifestInputs) -> Rendered:
    """Return the claim of the shared storage. Raises `SpecError` if the spec names a claim that exists."""
    kubernetes = inputs.deploy.kubernetes
    if kubernetes.claim is not None:
        raise SpecError(
            f"deploy.kubernetes.claim={kubernetes.claim} is the storage already",
            f"remove the key to make the claim {DEFAULT_CLAIM}",
        )
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": DEFAULT_CLAIM,
            "namespace": kubernetes.namespace,
            "labels": {**NAME_LABEL, "app.kubernetes.io/managed-by": "raymill", **kubernetes.labels},
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": kubernetes.storage_class,
            "resources": {"requests": {"storage": f"{kubernetes.storage_gb}Gi"}},
        },
    }
    return {"storage.yaml": [claim]}
