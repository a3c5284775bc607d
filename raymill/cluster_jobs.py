"""The jobs of a cluster: list them, ask about one, read or follow its log, stop it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.console import Console
    from cluster.jobs.client import JobClient

#: Names the job of raymill that was submitted last instead of a job's name.
LAST = "last"

_STOP_WITHIN_S = 60.0
_ASK_EVERY_S = 0.3


def jobs(*, address: str | None = None) -> list[dict[str, Any]]:
    """Return the jobs that were submitted to the cluster whose dashboard is at `address`, oldest first.

    Without `address`, RAY_API_SERVER_ADDRESS or RAY_ADDRESS gives it. Keys: `job`, `status` (PENDING, RUNNING, SUCCEEDED,
    FAILED or STOPPED), `name` of the spec, `raymill` (version that submitted it), `storage`, `started` and `ended` (seconds
    since 1970), `exit_code`, `entrypoint`, `message` (Ray's, one line). `name`, `raymill` and `storage` are None for jobs
    of others. The small jobs that look at the nodes are left out. Raises `ResourceError` if the cluster does not answer.
    """
    from cluster.jobs.client import CHECK, describe_job

    listed = connect_to_jobs(address).all_jobs()
    return [describe_job(info) for info in listed if not str(info.submission_id).startswith(CHECK)]


def job_status(job: str, *, address: str | None = None) -> dict[str, Any]:
    """Return what `jobs` returns of one job, with `progress` and `result`: what its log says last; None if nothing.

    `job` is its name, the beginning of it, or `last`. Raises `ResourceError` if there is no such job.
    """
    from cluster.errors import ResourceError
    from cluster.jobs.client import describe_job

    client = connect_to_jobs(address)
    name = find_job(client, job)
    description = describe_job(client.info(name))
    view = _silent_view()
    try:
        for line in client.log(name).splitlines():
            view.show(line)
    except ResourceError:  # the node of the log is gone
        return {**description, "progress": None, "result": None}
    progress = view.progress.model_dump(mode="json", exclude_defaults=True) if view.progress else None
    return {**description, "progress": progress, "result": view.result}


def job_logs(
    job: str, *, address: str | None = None, follow: bool = False, console: Console | None = None
) -> Iterator[str]:
    """Yield the lines of a job's log that are for people; with `follow`, until the job ends.

    `console` shows the progress and what happens to the connection. `job` is as for `job_status`.
    """
    from cluster.console import Console
    from cluster.jobs.log_view import LogView

    client = connect_to_jobs(address)
    name = find_job(client, job)
    lines: list[str] = []
    shown = console or Console()
    view = LogView(shown if follow else Console(), lines.append)
    source = follow_lines(client, name, shown) if follow else client.log(name).splitlines()
    try:
        for line in source:
            view.show(line)
            yield from lines
            lines.clear()
    finally:
        view.close()


def stop_job(job: str, *, address: str | None = None) -> dict[str, Any]:
    """Stop a job, wait until it has ended, and return what `jobs` returns of it. `job` is as for `job_status`.

    Its checkpoints stay: the same spec, submitted again, resumes from them.
    """
    client = connect_to_jobs(address)
    return stop_and_wait(client, find_job(client, job))


def connect_to_jobs(address: str | None) -> JobClient:
    """Return a client of the cluster whose dashboard is at `address`. Raises `ResourceError`."""
    from cluster.jobs.address import find_jobs_address
    from cluster.jobs.client import JobClient

    return JobClient(find_jobs_address(address))


def find_job(client: JobClient, job: str) -> str:
    """Return the full name of a job: `job` itself, the only one that begins with it, or raymill's newest for `last`."""
    from cluster.jobs.client import UnknownJobError

    listed = client.all_jobs()
    names = [str(info.submission_id) for info in listed]
    if job in names:
        return job
    if job == LAST:
        names = [str(info.submission_id) for info in listed if "raymill" in (info.metadata or {})][-1:]
        matches = names
    else:
        matches = [name for name in names if job and name.startswith(job)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UnknownJobError(
            f"{job!r} is the beginning of {len(matches)} jobs", f"write more of the name: {', '.join(matches[-5:])}"
        )
    if job == LAST:
        raise UnknownJobError(f"{client.address} has no job of raymill's", "start one with `raymill submit SPEC`")
    client.info(job)  # raises the error that names similar jobs
    return job


def follow_lines(client: JobClient, job: str, console: Console) -> Iterator[str]:
    """Yield the lines of a job's log until it ends; say on the console if the connection is lost."""
    from cluster.jobs.log_follower import LogFollower

    def notify(text: str) -> None:
        console.print(text, style="yellow")

    return LogFollower(client, job, notify).lines()


def stop_and_wait(client: JobClient, job: str) -> dict[str, Any]:
    """Stop a job and return its description once it has ended. Raises `ResourceError` after a minute."""
    from cluster.errors import ResourceError
    from cluster.jobs.client import describe_job, has_ended

    if not has_ended(client.info(job)):
        client.stop(job)
    deadline = time.monotonic() + _STOP_WITHIN_S
    while not has_ended(info := client.info(job)):
        if time.monotonic() > deadline:
            raise ResourceError(
                f"the job {job} has not ended within {_STOP_WITHIN_S:.0f} s",
                f"`raymill jobs status {job}` shows its state",
            )
        time.sleep(_ASK_EVERY_S)
    return describe_job(info)


def _silent_view() -> Any:
    from cluster.console import Console
    from cluster.jobs.log_view import LogView

    ignore: Callable[[str], None] = len  # type: ignore[assignment]
    return LogView(Console(), ignore)
