"""Kind `raycluster`: a standing Ray cluster on Kubernetes."""

from __future__ import annotations

from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs


def render(inputs: ManifestInputs) -> Rendered:
    """Return the manifests of a standing cluster."""
    metadata = {"name": inputs.name}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"run.yaml": inputs.spec_text}}
    return {"config.yaml": [config_map]}
