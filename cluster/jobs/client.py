"""Ray's job client with time limits, and with errors that say what to do."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.deadline import call_within
from cluster.errors import ResourceError, UserError, first_line, suggest
from cluster.jobs.address import API_VARIABLE, JobsAddress
from cluster.ray_address import VARIABLE
from cluster.ray_token import token_error

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

T = TypeVar("T")

_ANSWER_WITHIN_S = 20.0
_UPLOAD_WITHIN_S = 300.0
_STATUS_CODE = re.compile(r"status code (\d+): (.*)", re.DOTALL)
#: The beginning of the names of the small jobs that look at the nodes.
CHECK = "raymill-check-"
#: The states in which a job has ended.
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class UnknownJobError(ResourceError):
    """There is no job of that name on the cluster."""


class NoAnswerError(ResourceError):
    """The cluster does not answer at the moment. The next question may be answered."""


class JobClient:
    """Submits jobs to one cluster and asks about them. Each method raises `ResourceError`."""

    def __init__(self, address: JobsAddress) -> None:
        """Connect. Raises `ResourceError` if nothing answers there, or if the token is refused."""
        self.address = address
        address.check()
        self._client = self._ask(lambda: _connect(address.url))

    def submit(self, entrypoint: str, package: Path, *, job: str, metadata: dict[str, str] | None = None) -> None:
        """Upload the zip file `package`, unless the cluster has it, and start `entrypoint` in its content.

        Neither the entrypoint nor the metadata may hold a secret: the dashboard shows them.
        """
        self._ask(
            lambda: self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job,
                runtime_env={"working_dir": str(package)},
                metadata=metadata or {},
            ),
            within_s=_UPLOAD_WITHIN_S,
        )

    def info(self, job: str) -> JobDetails:
        """Return what Ray knows of a job. Raises `UnknownJobError`."""
        return self._ask(lambda: self._client.get_job_info(job), job)

    def all_jobs(self) -> list[JobDetails]:
        """Return all jobs that were submitted, in the order of their start. Those of connected drivers are left out."""
        jobs = [job for job in self._ask(self._client.list_jobs) if job.submission_id]
        return sorted(jobs, key=lambda job: job.start_time or 0)

    def stop(self, job: str) -> None:
        """Ask a job to stop."""
        self._ask(lambda: self._client.stop_job(job), job)

    def log(self, job: str) -> str:
        """Return all that a job has printed so far."""
        return self._ask(lambda: self._client.get_job_logs(job), job, within_s=_UPLOAD_WITHIN_S)

    def tail(self, job: str) -> AsyncIterator[str]:
        """Yield the text of a job's log from its beginning, and then as it is printed, until the job ends.

        Raises errors of many kinds if the connection is lost.
        """
        return self._client.tail_job_logs(job)

    def _ask(self, question: Callable[[], T], job: str = "", *, within_s: float = _ANSWER_WITHIN_S) -> T:
        """Return the answer to `question`. Raises `NoAnswerError` after `within_s`: Ray's client waits forever."""
        with self._translated(job):
            return call_within(question, within_s)

    @contextlib.contextmanager
    def _translated(self, job: str = "") -> Iterator[None]:
        """Raise errors of Ray and of the network as `ResourceError`."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except UserError:
            raise
        except AuthenticationError as error:
            raise token_error(str(self.address)) from error
        except (requests.RequestException, OSError, TimeoutError, futures.TimeoutError) as error:
            cause = self.address.no_answer(error)
            raise NoAnswerError(cause.problem, cause.fix) from error
        except (RuntimeError, ValueError) as error:
            raise self._explain(error, job) from error

    def _explain(self, error: Exception, job: str) -> ResourceError:
        """Return the error for an answer that is no success."""
        answer = _STATUS_CODE.search(str(error))
        if answer and answer[1] == "404" and job:
            return UnknownJobError(f"there is no job {job!r} at {self.address}", self._known_jobs(job))
        problem = last_line(answer[2]) if answer else first_line(error)
        return ResourceError(
            f"{self.address} answers: {problem}",
            "check that this is the dashboard of a Ray of the same version, and look into the head's logs",
        )

    def _known_jobs(self, job: str) -> str:
        with contextlib.suppress(UserError):
            names = [str(known.submission_id) for known in self.all_jobs()]
            return suggest(job, names[-10:], then="`raymill jobs` lists them")
        return "`raymill jobs` lists them"


def _connect(url: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard_sdk", "job.sdk"):  # they report each upload
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
    # Ray takes the address from these variables even if it is passed one.
    variables = {name: os.environ.pop(name) for name in (API_VARIABLE, VARIABLE) if name in os.environ}
    try:
        return JobSubmissionClient(url)
    finally:
        os.environ.update(variables)


def last_line(text: str, limit: int = 300) -> str:
    """Return the last line of a text that is not empty, which is the message of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-limit:] if lines else "no message"


def has_ended(info: JobDetails) -> bool:
    """Return whether a job has ended, however it did."""
    return str(info.status.value) in ENDED


def describe_job(info: JobDetails) -> dict[str, Any]:
    """Return what people ask about a job, in types of JSON. Times are in seconds since 1970, or None."""
    metadata = info.metadata or {}
    return {
        "job": info.submission_id,
        "status": str(info.status.value),
        "name": metadata.get("name"),
        "raymill": metadata.get("raymill"),
        "storage": metadata.get("storage"),
        "started": info.start_time / 1000 if info.start_time else None,
        "ended": info.end_time / 1000 if info.end_time else None,
        "exit_code": info.driver_exit_code,
        "entrypoint": info.entrypoint,
        "message": first_line(Exception(info.message or "")) if info.message else None,
    }
