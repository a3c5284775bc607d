"""Submit a run to a cluster as a Ray job, and follow it."""

from __future__ import annotations

import itertools
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raymill.cluster_jobs import connect_to_jobs, follow_lines
from raymill.session import console_or_default

if TYPE_CHECKING:
    from cluster.console import Console
    from cluster.jobs.client import JobClient
    from cluster.jobs.probe import NodeReports
    from raymill.submission_plan import SubmissionPlan
    from trainer.spec.run import RunSpec

#: Files over so many MB do not travel.
MAX_FILE_MB = 10.0

_ENTRYPOINT = "python -m raymill run-job {file}"
# The widest table that raymill prints.
_COLUMNS = 120


class SubmittedJob(NamedTuple):
    """A job that was submitted, and the client of its cluster."""

    client: JobClient
    name: str


def submit(
    spec: str | Path | RunSpec | Mapping[str, Any],
    *,
    address: str | None = None,
    overrides: Iterable[str] = (),
    detach: bool = False,
    new: bool = False,
    max_file_mb: float = MAX_FILE_MB,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run `spec` on the cluster whose dashboard is at `address`, as a Ray job, and follow it unless `detach` is set.

    The working directory travels with the job, without version control, environments, caches, storage, secrets, what
    .gitignore and .rayignore name, and files over `max_file_mb`. Data and base models outside of it, and the storage
    folder, must be addresses or paths that all nodes see; this is checked on the nodes before anything is sent. A run
    of the same spec that was interrupted is resumed, unless `new` is set.

    Returns `job` and `status`; with the end of the job also `exit_code` and `result`, the outcome as a dict. Raises
    `SpecError` for paths that not all nodes see, and `ResourceError` if the cluster does not answer.
    """
    job = start_job(
        spec,
        address=address,
        overrides=overrides,
        new=new,
        max_file_mb=max_file_mb,
        console=console_or_default(console),
    )
    if detach:
        return {"job": job.name, "status": str(job.client.info(job.name).status.value)}
    return follow_job(job, console_or_default(console))


def start_job(
    spec: str | Path | RunSpec | Mapping[str, Any],
    *,
    address: str | None,
    overrides: Iterable[str],
    new: bool,
    max_file_mb: float,
    console: Console,
) -> SubmittedJob:
    """Check, pack and submit; return the job. See `submit`."""
    from cluster.jobs.package import check_package_size, describe_left_out, write_package
    from cluster.jobs.probe import ask_nodes
    from cluster.process_setup import working_directory
    from cluster.text import format_bytes
    from raymill.submission_plan import JOB_FILE, plan_submission
    from trainer.tasks.load_spec import load_spec

    max_file_bytes = int(max_file_mb * 1e6)
    root = working_directory()
    plan = plan_submission(load_spec(spec, overrides), root, max_file_bytes, starts_new=new, columns=_COLUMNS)
    total = check_package_size(plan.sizes, root)
    client = connect_to_jobs(address)
    check_not_running(client, plan, starts_new=new)
    with console.stage("nodes"):
        reports = ask_nodes(
            client, paths=[item.path for item in plan.outside], packages=plan.packages, storage=plan.storage
        )
    check_nodes(reports, plan, max_file_bytes, console)
    name = f"{plan.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="raymill-") as folder:
        package = Path(folder) / "job.zip"
        packed = write_package(package, plan.files)
        console.print(
            f"working directory {root}: {len(plan.files):,} files, {format_bytes(total)}; "
            f"{format_bytes(packed)} to upload"
        )
        for line in describe_left_out(plan.left_out, max_file_bytes):
            console.detail(line)
        with console.stage("upload"):
            client.submit(_ENTRYPOINT.format(file=JOB_FILE), package, job=name, metadata=_metadata(plan))
    console.print(f"job {name} at {client.address.shown}", style="bold")
    return SubmittedJob(client, name)


def follow_job(job: SubmittedJob, console: Console) -> dict[str, Any]:
    """Show the log and the progress of a job until it ends. Returns what `submit` returns at the end."""
    from cluster.jobs.client import describe_job
    from cluster.jobs.log_view import LogView

    view = LogView(console, console.print_line)
    lines = follow_lines(job.client, job.name, console)
    try:
        with console.stage("start"):  # until the job prints something: a cluster may have to make room first
            first = next(lines, None)
        for line in lines if first is None else itertools.chain([first], lines):
            view.show(line)
    finally:
        view.close()
    description = describe_job(job.client.info(job.name))
    return {
        "job": job.name,
        "status": description["status"],
        "exit_code": exit_code_of(description),
        "result": view.result,
        "message": description["message"],
    }


def exit_code_of(description: Mapping[str, Any]) -> int:
    """Return the exit code of a job that has ended: that of its run. A stopped job counts as interrupted."""
    from cluster.errors import classify_error

    if description["status"] == "SUCCEEDED":
        return 0
    if description["status"] == "STOPPED":
        return classify_error(KeyboardInterrupt()).exit_code
    code = description["exit_code"]
    return int(code) if code and code > 0 else classify_error(RuntimeError()).exit_code


def check_not_running(client: JobClient, plan: SubmissionPlan, *, starts_new: bool) -> None:
    """Raise `ResourceError` if a job of the cluster runs the same spec, unless a second one is asked for."""
    from cluster.errors import ResourceError
    from cluster.jobs.client import has_ended

    for info in client.all_jobs():
        if not starts_new and not has_ended(info) and (info.metadata or {}).get("spec") == plan.spec_digest:
            name = info.submission_id
            raise ResourceError(
                f"the job {name} runs this spec already",
                f"follow it with `raymill jobs logs -f {name}`, stop it with `raymill jobs stop {name}`, or start another "
                "run with `raymill submit --new`",
            )


def check_nodes(reports: NodeReports, plan: SubmissionPlan, max_file_bytes: int, console: Console) -> None:
    """Raise an error for what the nodes lack, and print what differs from this machine."""
    from cluster.errors import ModelError, ResourceError
    from raymill.submission_plan import outside_error

    for name, reason in reports.silent.items():
        console.print(f"{name} was not checked: {reason}", style="yellow")
    console.detail(f"{len(reports.nodes)} nodes; {_describe_versions(reports)}")
    _check_versions(reports, plan, console)
    if reports.storage:
        raise ResourceError(
            f"storage={plan.storage}: {'; '.join(reports.storage)}",
            "name a folder that all nodes see, such as a mounted NFS share or volume, in the spec or with `--storage`",
        )
    missing = []
    for item in plan.outside:
        sizes = {name: node["paths"][item.path] for name, node in reports.nodes.items()}
        absent = [name for name, size in sizes.items() if size is None]
        if absent:
            missing.append((item, f"does not exist on {', '.join(absent[:4])}"))
        elif len({*sizes.values(), *([] if item.size is None else [item.size])}) > 1:
            missing.append((item, "is not the same file everywhere: its size differs"))
    if missing:
        raise outside_error(missing, max_file_bytes)
    for package in plan.packages:
        absent = [name for name, node in reports.nodes.items() if package in node["packages"]]
        if absent:
            raise ModelError(
                f"model.base: the package '{package}' is not installed on {', '.join(absent[:4])}",
                "install it on every node, or name a folder that all nodes see",
            )


def _check_versions(reports: NodeReports, plan: SubmissionPlan, console: Console) -> None:
    """Raise `ResourceError` if raymill is not installed on a node; print which versions differ from this machine's."""
    from cluster.errors import ResourceError
    from cluster.node_checks.versions import read_versions

    here = read_versions()
    absent = [name for name, node in reports.nodes.items() if not node["versions"]["raymill"][:1].isdigit()]
    if absent and not plan.brings_raymill:
        raise ResourceError(
            f"raymill is not installed on {', '.join(absent[:4])}; it does not travel with the job",
            f"install version {here['raymill']} on every node, for example with the image of cluster/images",
        )
    for package in ("raymill", "ray", "python", "torch"):
        others = {node["versions"][package] for node in reports.nodes.values()} - {here[package]}
        if others and not (package == "raymill" and plan.brings_raymill):
            console.detail(
                f"{package} {', '.join(sorted(others))} on the nodes, {here[package]} here: the result may differ from "
                "that of a run on this machine",
                style="yellow",
            )


def _describe_versions(reports: NodeReports) -> str:
    versions = [node["versions"] for node in reports.nodes.values()]
    return ", ".join(
        f"{package} {' and '.join(sorted({version[package] for version in versions}))}"
        for package in ("raymill", "ray", "python")
        if versions
    )


def _metadata(plan: SubmissionPlan) -> dict[str, str]:
    """Return what the dashboard shows about the job: no secrets."""
    from importlib.metadata import version

    return {"raymill": version("raymill"), "name": plan.name, "spec": plan.spec_digest, "storage": plan.storage}
