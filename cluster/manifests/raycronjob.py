"""Kind `raycronjob`: the nightly pipeline of the spec: new data, train or search, gate, roll-out, report."""

from __future__ import annotations

import shlex
from typing import Any

from cluster.errors import SpecError
from cluster.manifests.documents import Rendered
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_cluster import training_files
from cluster.manifests.kubernetes_groups import training_groups
from cluster.manifests.kubernetes_objects import metadata, object_name
from cluster.manifests.rayjob import entrypoint, ray_job, run_command

_SUFFIX, _LONGEST_NAME = "-nightly", 36
# Kueue's queue for jobs without a label.
_DEFAULT_QUEUE = "default"


def render(inputs: ManifestInputs) -> Rendered:
    """Return the manifests of the nightly pipeline.

    RayCronJob has no `concurrencyPolicy`: the run holds a lock in the storage, so two nights never overlap, and a run by
    hand waits its turn as well. Raises `SpecError` for a queue that jobs of a RayCronJob cannot join.
    """
    _check_queue(inputs)
    name = object_name(inputs, _SUFFIX, _LONGEST_NAME)
    groups = training_groups(inputs)
    job: dict[str, Any] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": metadata(inputs, name, name),
        "spec": {
            "schedule": inputs.deploy.schedule,
            "timeZone": inputs.deploy.time_zone,
            "jobTemplate": ray_job(inputs, name, groups, entrypoint(inputs, nightly_commands(inputs))),
        },
    }
    return {**training_files(inputs, name, groups), "raycronjob.yaml": [job]}


def nightly_commands(inputs: ManifestInputs) -> list[str]:
    """Return the commands of one night: a run (whose report is in its folder), and the roll-out of the champion."""
    kubernetes = inputs.deploy.kubernetes
    endpoint = kubernetes.endpoint
    if endpoint is None:
        return [_run(inputs)]
    if kubernetes.token_secret is None:
        raise SpecError(
            f"deploy.kubernetes.endpoint={endpoint} is another Ray, with a token of its own",
            "give both the same: make a Secret with the key `auth_token`, and set `deploy.kubernetes.token_secret` to its name",
        )
    model = f"{inputs.spec.name}@{inputs.spec.promote.alias}"
    rollout = shlex.join(["raymill", "rollout", model, "--storage", inputs.storage, "--address", endpoint])
    return [_run(inputs), rollout]


def _run(inputs: ManifestInputs) -> str:
    """Return the command of a night's run. A night without new rows trains nothing."""
    return f"{run_command(inputs)} --if-changed"


def _check_queue(inputs: ManifestInputs) -> None:
    queue = inputs.deploy.kubernetes.queue
    if queue is not None and queue.kueue != _DEFAULT_QUEUE:
        raise SpecError(
            f"deploy.kubernetes.queue names {queue.kueue or queue.volcano}, but KubeRay gives the jobs of a RayCronJob no "
            "labels of yours, so they cannot name a queue",
            f"use a LocalQueue of Kueue called `{_DEFAULT_QUEUE}`, which takes jobs without a label: "
            f"`queue: {{kueue: {_DEFAULT_QUEUE}}}`",
        )
