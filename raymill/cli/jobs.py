"""Commands for jobs on a cluster: submit, jobs, and run-job, which a job runs."""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import SPEC, DefaultGroup, shared_options, with_storage

if TYPE_CHECKING:
    from raymill.submission import SubmittedJob

_ADDRESS = click.option(
    "--address",
    metavar="URL",
    help="Ray's dashboard on the head, http://HEAD:8265. Default: RAY_API_SERVER_ADDRESS or RAY_ADDRESS.",
)
_JOB = click.argument("job")


class _Terminated(KeyboardInterrupt):
    """SIGTERM: nobody is there to be asked."""


@click.command("submit")
@SPEC
@_ADDRESS
@click.option("--detach", is_flag=True, help="Do not follow the job.")
@click.option("--new", is_flag=True, help="Start a new run even if one of this spec was interrupted.")
@click.option(
    "--max-file-mb",
    type=click.FloatRange(0, 500),
    default=10.0,
    show_default=True,
    help="Larger files of the working directory do not travel.",
)
@shared_options("set", "storage")
def submit_command(
    context: CommandContext,
    spec: str,
    address: str | None,
    detach: bool,
    new: bool,
    max_file_mb: float,
    overrides: tuple[str, ...],
    storage: str | None,
) -> None:
    """Run SPEC on a cluster, as a Ray job, and follow it.

    The working directory travels with the job. Data, base model and storage must be addresses, paths that all nodes see,
    or small files in the working directory. Submitting again resumes a run that was interrupted.
    """
    from raymill.submission import follow_job, start_job

    console = context.console
    job = start_job(
        spec,
        address=address,
        overrides=with_storage(overrides, storage),
        new=new,
        max_file_mb=max_file_mb,
        console=console,
    )
    again = _with_address("raymill jobs {} " + job.name, address)
    if detach:
        context.emit({"job": job.name}, [f"follow it: {again.format('logs -f')}", f"stop it:   {again.format('stop')}"])
        return
    try:
        with _terminated_apart():
            end = follow_job(job, console)
    except KeyboardInterrupt as interrupt:
        _stop_or_detach(context, job, again, asks=not isinstance(interrupt, _Terminated))
        return
    _emit_end(context, end)


def _emit_end(context: CommandContext, end: dict[str, Any]) -> None:
    """Print the result of the run as `raymill run` does, and take over its exit code."""
    context.exit_code = end["exit_code"]
    result = end["result"]
    if result is None:
        reason = end["message"] or f"it is {end['status']}"
        context.console.print(f"the job {end['job']} ended without a result: {reason}", style="red")
        result = {"error": reason}
    lines = result.pop("lines", [])
    if lines or context.as_json:
        context.emit({**result, "job": end["job"]}, lines)


def _stop_or_detach(context: CommandContext, job: SubmittedJob, again: str, *, asks: bool) -> None:
    """After Ctrl-C: ask whether to stop the job, where somebody can answer; otherwise let it run."""
    from cluster.errors import classify_error
    from raymill.cluster_jobs import stop_and_wait

    context.exit_code = classify_error(KeyboardInterrupt()).exit_code
    console = context.console
    if asks and sys.stdin.isatty() and console.is_terminal and _wants_to_stop(context):
        console.print("stopping the job", style="yellow")
        status = stop_and_wait(job.client, job.name)["status"]
        console.print(f"{job.name}: {status}; the same command resumes the run from its last checkpoint")
    else:
        status = "RUNNING"
        console.print(f"the job goes on; follow it: {again.format('logs -f')}", style="yellow")
        console.print(f"stop it: {again.format('stop')}", style="yellow")
    if context.as_json:
        context.emit({"job": job.name, "status": status, "error": "interrupted"}, [])


def _wants_to_stop(context: CommandContext) -> bool:
    """Ask. A second Ctrl-C, or the end of the input, lets the job run."""
    try:
        context.console.print("\nstop the job (s), or detach and let it run (d)? [d]", style="yellow")
        return sys.stdin.readline().strip().lower() in ("s", "stop")
    except (KeyboardInterrupt, OSError):
        return False


@contextlib.contextmanager
def _terminated_apart() -> Iterator[None]:
    """Raise `_Terminated` for SIGTERM while the block runs, which Ctrl-C does not."""

    def terminate(signum: int, frame: Any) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group("jobs", cls=DefaultGroup)
def jobs_group() -> None:
    """Jobs on a cluster: list, status, logs, stop."""


@jobs_group.command("list")
@_ADDRESS
@shared_options()
def jobs_list_command(context: CommandContext, address: str | None) -> None:
    """List the jobs that were submitted, oldest first."""
    jobs = raymill.jobs(address=address)
    width = max((len(job["job"]) for job in jobs), default=0)
    lines = [
        f"{job['job']:<{width}}  {job['status']:<9}  {_time(job['started']):<19}  {_time(job['ended'])}".rstrip()
        for job in jobs
    ]
    context.emit({"jobs": jobs}, lines or ["no jobs"])


@jobs_group.command("status")
@_JOB
@_ADDRESS
@shared_options()
def jobs_status_command(context: CommandContext, job: str, address: str | None) -> None:
    """Show the state of JOB: its name, the beginning of it, or `last`."""
    status = raymill.job_status(job, address=address)
    result = dict(status["result"] or {})
    result.pop("lines", None)
    status["result"] = result or None
    lines = [f"{status['job']}: {status['status']}", f"started: {_time(status['started'])}"]
    if status["ended"]:
        lines.append(f"ended: {_time(status['ended'])}, exit code {status['exit_code']}")
    elif status["progress"]:
        lines.append(f"stage: {_describe_progress(status['progress'])}")
    lines += [f"{key}: {result[key]}" for key in ("run", "error") if key in result]
    if status["ended"] and not result and status["message"]:
        lines.append(status["message"])
    context.emit(status, lines)


def _describe_progress(progress: dict[str, Any]) -> str:
    inner = progress.get("progress") or {}
    done = f", {inner['done'] / inner['total']:.0%}" if inner.get("total") else ""
    return f"{progress['stage']}, {progress['seconds']:.0f} s{done}{' ' + inner['note'] if inner.get('note') else ''}"


@jobs_group.command("logs")
@_JOB
@_ADDRESS
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the job ends; exit with its exit code.")
@shared_options()
def jobs_logs_command(context: CommandContext, job: str, address: str | None, follow: bool) -> None:
    """Print the log of JOB: its name, the beginning of it, or `last`."""
    from raymill.submission import exit_code_of

    lines = raymill.job_logs(job, address=address, follow=follow, console=context.console)
    is_shared = follow and context.console.is_terminal and sys.stdout.isatty()
    try:
        for line in lines:
            if is_shared:
                context.console.print_line(line)  # above the progress line
            else:
                print(line, file=context.output.stdout, flush=follow)
    except KeyboardInterrupt:
        context.console.print("the job goes on")
        context.exit_code = 130
        return
    if follow:
        context.exit_code = exit_code_of(raymill.job_status(job, address=address))


@jobs_group.command("stop")
@_JOB
@_ADDRESS
@shared_options()
def jobs_stop_command(context: CommandContext, job: str, address: str | None) -> None:
    """Stop JOB: its name, the beginning of it, or `last`. Its checkpoints stay."""
    status = raymill.stop_job(job, address=address)
    hint = "; submit the spec again to resume the run" if status["status"] == "STOPPED" else ""
    context.emit(status, [f"{status['job']}: {status['status']}{hint}"])


def _time(seconds: float | None) -> str:
    """Return a time in UTC, as everywhere in raymill."""
    return f"{dt.datetime.fromtimestamp(seconds, dt.timezone.utc):%Y-%m-%d %H:%M:%S}" if seconds else ""


def _with_address(command: str, address: str | None) -> str:
    return f"{command} --address {address}" if address else command


class _JobContext(CommandContext):
    """The output of a command inside a job: everything goes to the job's log, the progress and the result as events."""

    def __init__(self) -> None:
        from cluster.jobs.events import EventConsole

        super().__init__(as_json=True, verbose=False, debug=False)
        self.console = EventConsole(sys.stderr, self.output)

    def emit(self, result: dict[str, Any], lines: list[str]) -> None:
        """Write the result to the log, with the lines that the command which follows the job prints."""
        from cluster.jobs.events import RESULT, write_event

        write_event(self.output.stdout, RESULT, {**result, "lines": lines})


@click.command("run-job", hidden=True)
@click.argument("file", type=click.Path(path_type=Path))
def run_job_command(file: Path) -> None:
    """Run what `raymill submit` sent. It is the entrypoint of the job."""
    import os

    from cluster.files import read_json
    from raymill.cli.runs import summary_lines
    from raymill.submitted_run import run_submitted

    job = read_json(file)
    os.environ["COLUMNS"] = str(job["columns"])
    context = _JobContext()

    def work(context: CommandContext) -> None:
        outcome = run_submitted(job, file.absolute().parent, context.console)
        context.emit(outcome.as_dict(), summary_lines(outcome))

    context.run(work)
