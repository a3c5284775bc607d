"""Kind `raycluster`: a standing Ray cluster on Kubernetes, to which jobs are submitted."""

from __future__ import annotations

from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_cluster import ray_cluster, training_files
from cluster.manifests.kubernetes_groups import training_groups
from cluster.manifests.kubernetes_objects import metadata, object_name, queue_labels

_SUFFIX, _LONGEST_NAME = "-ray", 53


def render(inputs: ManifestInputs) -> Rendered:
    """Return the manifests of a standing cluster, as large as the spec's training needs."""
    name = object_name(inputs, _SUFFIX, _LONGEST_NAME)
    groups = training_groups(inputs)
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": metadata(inputs, name, name, labels=queue_labels(inputs)),
        "spec": ray_cluster(inputs, name, groups),
    }
    return {**training_files(inputs, name, groups), "raycluster.yaml": [cluster]}
