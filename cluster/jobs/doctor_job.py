"""Check the nodes of a cluster from inside, by a small job: for a machine that reaches only the dashboard."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.environment_checks import Check
from cluster.jobs.node_report import ANSWER, REQUEST_FILE
from cluster.node_checks.answers import NodeAnswer
from cluster.node_checks.doctor import NodeReport, check_nodes

if TYPE_CHECKING:
    from cluster.jobs.client import JobClient

_ENTRYPOINT = "python -m cluster.jobs.doctor_job"


def check_nodes_by_job(client: JobClient, folder: str, within_s: float) -> NodeReport:
    """Return what `check_nodes` returns on the cluster. Raises `ResourceError` if the job does not answer."""
    from cluster.jobs.probe import ask_by_job

    answer = ask_by_job(client, _ENTRYPOINT, {"folder": folder, "within_s": within_s})
    return NodeReport([Check(*check) for check in answer["checks"]], [NodeAnswer(*node) for node in answer["nodes"]])


def main() -> None:
    """Answer the question in `REQUEST_FILE` with one line on stdout."""
    import logging

    import ray

    request = json.loads(Path(REQUEST_FILE).read_bytes())
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    report = check_nodes(request["folder"], request["within_s"])
    sys.stdout.write(f"{ANSWER} {json.dumps(report._asdict())}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
