"""Kind `rayjob`: one run of the spec on a cluster of its own, which is removed afterwards."""

from __future__ import annotations

import shlex
from typing import Any

from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_cluster import ray_cluster, training_files
from cluster.manifests.kubernetes_groups import WorkerGroup, training_groups
from cluster.manifests.kubernetes_objects import (
    SPEC_PATH,
    metadata,
    object_name,
    queue_labels,
)
from cluster.manifests.kubernetes_pods import submitter_template

_SUFFIX, _LONGEST_NAME = "-train", 47


def render(inputs: ManifestInputs) -> Rendered:
    """Return the manifests of one run."""
    name = object_name(inputs, _SUFFIX, _LONGEST_NAME)
    groups = training_groups(inputs)
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata(inputs, name, name, labels=queue_labels(inputs)),
        "spec": ray_job(inputs, name, groups, entrypoint(inputs, [run_command(inputs)])),
    }
    return {**training_files(inputs, name, groups), "rayjob.yaml": [job]}


def ray_job(inputs: ManifestInputs, instance: str, groups: list[WorkerGroup], command: str) -> dict[str, Any]:
    """Return a `RayJobSpec` that runs a command on a cluster of its own."""
    kubernetes = inputs.deploy.kubernetes
    return {
        "entrypoint": command,
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": submitter_template(inputs, instance),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": kubernetes.keep_s,
        "backoffLimit": kubernetes.retries,
        "activeDeadlineSeconds": kubernetes.deadline_s,
        "rayClusterSpec": ray_cluster(inputs, instance, groups),
    }


def run_command(inputs: ManifestInputs) -> str:
    """Return the command of a run. It goes on with an interrupted one, and never overlaps with another of the model."""
    return shlex.join(["raymill", "run", SPEC_PATH, "--continue", "--lock", inputs.lock])


def entrypoint(inputs: ManifestInputs, commands: list[str]) -> str:
    """Return commands as one for a job, in the folder with the user's own modules.

    KubeRay writes it into a line of a shell of the submitting pod, so all operators of the shell are inside quotes.
    """
    project = shlex.quote(inputs.deploy.project)
    script = " && ".join([f"mkdir -p {project}", f"cd {project}", *commands])
    return f"bash -c {shlex.quote(script)}"
