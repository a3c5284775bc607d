"""Check this machine, or all nodes of a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.session import STORAGE, storage_folder

if TYPE_CHECKING:
    from cluster.environment_checks import Check
    from cluster.node_checks.doctor import NodeReport

#: Seconds that a node may take to answer; on a busy machine, Ray needs several to start a process.
ANSWER_WITHIN_S = 30.0


def doctor(
    storage: str | Path = STORAGE, *, address: str | None = None, within_s: float = ANSWER_WITHIN_S
) -> dict[str, Any]:
    """Check this machine, or with `address` all nodes of that cluster, as `raymill doctor` does.

    Returns `ok`, whether nothing required is missing or wrong, and `checks`, a list of objects with `what`, `found`, `ok`,
    `needed` and `fix`; for a cluster also `nodes`, with what was read on each. `within_s` is how many seconds a node may
    take. Raises `ResourceError` if the cluster does not answer.
    """
    if address is None:
        checks = machine_checks(storage)
        return {"ok": all(check.ok or not check.needed for check in checks), "checks": [c.as_dict() for c in checks]}
    from cluster.node_checks.doctor import report_as_dict

    return report_as_dict(cluster_report(address, storage, within_s))


def machine_checks(storage: str | Path) -> list[Check]:
    """Return the checks of this machine. Starts nothing."""
    from cluster.doctor import run_checks
    from cluster.environment_checks import Check
    from trainer.tasks.catalog import TASKS

    return [
        *run_checks(str(storage)),
        Check("tasks", f"{len(TASKS)}; `raymill tasks` lists them", True, True, ""),
    ]


def cluster_report(address: str, storage: str | Path, within_s: float) -> NodeReport:
    """Check the nodes of the cluster at `address`: join it and leave it, or run a small job if it is a dashboard's URL.

    Raises `ResourceError` if it does not answer.
    """
    folder = str(storage_folder(storage))
    if address.startswith(("http://", "https://")):
        from cluster.jobs.address import find_jobs_address
        from cluster.jobs.client import JobClient
        from cluster.jobs.doctor_job import check_nodes_by_job

        return check_nodes_by_job(JobClient(find_jobs_address(address)), folder, within_s)
    from cluster.connect import connect_to_ray
    from cluster.node_checks.doctor import check_nodes
    from cluster.ray_address import OPTION

    with connect_to_ray(address, source=OPTION):
        return check_nodes(folder, within_s)
