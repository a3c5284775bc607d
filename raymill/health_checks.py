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
    """Join the cluster at `address`, check its nodes and leave it. Raises `ResourceError` if it does not answer."""
    from cluster.connect import connect_to_ray
    from cluster.node_checks.doctor import check_nodes
    from cluster.ray_address import OPTION

    with connect_to_ray(address, source=OPTION):
        return check_nodes(str(storage_folder(storage)), within_s)
