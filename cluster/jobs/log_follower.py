"""Follow the log of a job: every line once, also if the connection is lost in the middle.

Ray sends a log from its beginning to everyone who asks. So after a lost connection, the follower asks again and leaves
out as many characters as it has passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

from cluster.errors import ResourceError, first_line
from cluster.jobs.client import JobClient, NoAnswerError, UnknownJobError, has_ended

# Ask again after so much silence: a connection that a firewall or a router has dropped stays silent forever.
_SILENT_S = 30.0
_GIVE_UP_S = 900.0
_WAIT_S = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)


class LogFollower:
    """Follows one job. `notify` gets sentences about the connection."""

    def __init__(
        self,
        client: JobClient,
        job: str,
        notify: Callable[[str], None],
        *,
        silent_s: float = _SILENT_S,
        give_up_s: float = _GIVE_UP_S,
    ) -> None:
        self._client, self._job, self._notify = client, job, notify
        self._silent_s, self._give_up_s = silent_s, give_up_s
        self._received = 0  # characters of the log
        self._rest = ""  # the beginning of a line that is not complete yet
        self._lost_since: float | None = None

    def lines(self) -> Iterator[str]:
        """Yield the lines of the log, without line breaks, until the job has ended.

        Raises `ResourceError` if the cluster does not answer for a quarter of an hour, or no longer knows the job.
        """
        n_attempts = 0
        while True:
            before = self._received
            try:
                for text in self._tail():
                    yield from self._complete_lines(text)
            except Exception as error:  # of aiohttp, of the system, of Ray: they have no common class
                self._check_connection(error)
            n_attempts = 0 if self._received > before else n_attempts + 1
            if self._is_ended():
                yield from self._last_lines()
                return
            time.sleep(_WAIT_S[min(n_attempts, len(_WAIT_S) - 1)])

    def _tail(self) -> Iterator[str]:
        """Yield the new text of the log until the connection ends, or is silent for too long."""
        loop = asyncio.new_event_loop()
        chunks = self._client.tail(self._job)
        position = 0
        try:
            while True:
                pending = loop.create_task(_next(chunks))
                done, _ = loop.run_until_complete(asyncio.wait({pending}, timeout=self._silent_s))
                if not done:
                    pending.cancel()
                    return
                try:
                    chunk = pending.result()
                except StopAsyncIteration:
                    return
                self._connected()
                new = chunk[max(0, self._received - position) :]
                position += len(chunk)
                self._received = max(self._received, position)
                if new:
                    yield new
        finally:
            with contextlib.suppress(Exception):
                _close(loop)

    def _is_ended(self) -> bool:
        """Return whether the job has ended; False if the cluster does not answer at the moment."""
        try:
            info = self._client.info(self._job)
        except UnknownJobError:
            raise ResourceError(
                f"{self._client.address} no longer knows the job {self._job}: its head was started again",
                "submit the spec again; the run resumes from its last checkpoint",
            ) from None
        except NoAnswerError as error:
            self._lost(error)
            return False
        self._connected()
        return has_ended(info)

    def _last_lines(self) -> Iterator[str]:
        """Yield what was printed after the last text that was received."""
        try:
            text = self._client.log(self._job)
        except ResourceError as error:
            self._notify(f"the end of the log cannot be read: {error.problem}")
            text = ""
        new = text[self._received :]
        self._received += len(new)
        yield from self._complete_lines(new)
        if self._rest:
            yield self._rest
            self._rest = ""

    def _complete_lines(self, text: str) -> Iterator[str]:
        *lines, self._rest = (self._rest + text).split("\n")
        yield from lines

    def _check_connection(self, error: Exception) -> None:
        """Notice a lost connection, unless the cluster still answers: then only this answer was broken off."""
        with contextlib.suppress(ResourceError):
            self._client.info(self._job)
            return
        self._lost(error)

    def _lost(self, error: Exception) -> None:
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
            self._notify(f"connection lost ({first_line(error, 120)}); the job goes on; trying to connect again")
        elif now - self._lost_since > self._give_up_s:
            raise ResourceError(
                f"{self._client.address} has not answered for {self._give_up_s:.0f} s; the job may still run",
                f"`raymill jobs logs -f {self._job}` follows it once the cluster can be reached again",
            )

    def _connected(self) -> None:
        if self._lost_since is not None:
            self._notify(f"connected again after {time.monotonic() - self._lost_since:.0f} s")
            self._lost_since = None


async def _next(chunks: AsyncIterator[str]) -> str:
    return await anext(chunks)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop and the connections in it."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
