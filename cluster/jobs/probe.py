"""Ask the nodes of a cluster what they see, by a small job, before anything of the user's is sent."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import ResourceError
from cluster.import_guard import ROOT
from cluster.jobs.client import CHECK, JobClient, describe_job, has_ended, last_line
from cluster.jobs.node_report import ANSWER, REQUEST_FILE
from cluster.jobs.package import write_package

_WITHIN_S = 180.0
_ASK_EVERY_S = 0.5
_ENTRYPOINT = "python -m cluster.jobs.node_report"


class NodeReports(NamedTuple):
    """What the nodes answered."""

    nodes: dict[str, dict[str, Any]]
    """Name of a node -> what `node_report.read_facts` returned there."""
    silent: dict[str, str]
    """Name of a node that did not answer -> why."""
    storage: list[str]
    """What is wrong with the storage folder; empty if all nodes share it."""


def ask_nodes(client: JobClient, *, paths: list[str], packages: list[str], storage: str) -> NodeReports:
    """Return what all nodes see of `paths`, of the installed `packages`, and of the `storage` folder.

    Takes some seconds. Raises `ResourceError` if the job does not start or does not answer.
    """
    request = {"paths": paths, "packages": packages, "storage": storage}
    return NodeReports(**ask_by_job(client, _ENTRYPOINT, request))


def ask_by_job(client: JobClient, entrypoint: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run `entrypoint` as a job with the package `cluster` and `request` in `REQUEST_FILE`; return its answer.

    Raises `ResourceError` if the job does not start or does not answer.
    """
    job = f"{CHECK}{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="raymill-") as folder:
        package = Path(folder) / "check.zip"
        sources: dict[str, Path | bytes] = {
            path.relative_to(ROOT).as_posix(): path for path in (ROOT / "cluster").rglob("*.py")
        }
        write_package(package, {**sources, REQUEST_FILE: json.dumps(request).encode()})
        client.submit(entrypoint, package, job=job, metadata={"name": "check of the nodes"})
    try:
        return _wait_for_answer(client, job)
    except BaseException:
        _end(client, job)
        raise


def _wait_for_answer(client: JobClient, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + _WITHIN_S
    while not has_ended(info := client.info(job)):
        if time.monotonic() > deadline:
            waiting = describe_job(info)["message"] or "no reason is known"
            raise ResourceError(
                f"a small job does not get an answer from the nodes of {client.address} within {_WITHIN_S:.0f} s: {waiting}",
                "look at the cluster's dashboard: the head may have no free worker, or a node may hang",
            )
        time.sleep(_ASK_EVERY_S)
    log = client.log(job)
    for line in log.splitlines():
        word, _, text = line.partition(" ")
        if word == ANSWER:
            answer: dict[str, Any] = json.loads(text)
            return answer
    raise ResourceError(
        f"a small job that looks at the nodes of {client.address} failed: {last_line(log or str(info.message))}",
        f"`raymill jobs logs {job}` shows its log; the nodes need raymill and what it depends on",
    )


def _end(client: JobClient, job: str) -> None:
    """Stop a job that was interrupted, if the cluster still answers."""
    try:
        if not has_ended(client.info(job)):
            client.stop(job)
    except ResourceError:
        return
