"""Requests at a fixed rate, whatever the answers take: each is counted, with its time and its status or error."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

import aiohttp

_PACKET_GAP_S = 0.005


class Reply(NamedTuple):
    """What came of one request."""

    url: str
    sent_s: float
    """When it was to be sent, by `time.monotonic`."""
    seconds: float
    """From then until its answer, or until the client gave up."""
    status: int | str
    """The status, or the error's type."""

    @property
    def is_ok(self) -> bool:
        """Whether it was answered with 200."""
        return self.status == 200


class SteadyLoad:
    """Sends `per_s` requests a second to the URLs in turn, while the `with` block runs.

    Every second request is sent in two packets, as many clients do: a proxy that passes on what has come so far cannot
    send it again.
    """

    def __init__(
        self,
        urls: Sequence[str],
        body: object,
        *,
        per_s: float,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._urls, self._body, self._headers = list(urls), json.dumps(body).encode(), dict(headers or {})
        self._period_s, self._timeout_s = 1 / per_s, timeout_s
        self._ends = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_all()), daemon=True)
        self.replies: list[Reply] = []

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join(self._timeout_s + 60)
        assert not self._thread.is_alive()

    @property
    def failed(self) -> list[Reply]:
        """The requests without a 200."""
        return [reply for reply in self.replies if not reply.is_ok]

    def summary(self, since_s: float = 0.0) -> str:
        """Return the figures of the requests that were sent after a time, for a report."""
        replies = [reply for reply in self.replies if reply.sent_s >= since_s]
        failed = Counter(str(reply.status) for reply in replies if not reply.is_ok)
        slowest = max((reply.seconds for reply in replies if reply.is_ok), default=0.0)
        kinds = ", ".join(f"{count} {status}" for status, count in failed.items())
        return f"{sum(failed.values())} of {len(replies)} failed{f' ({kinds})' if kinds else ''}; slowest answer {slowest:.2f} s"

    async def _send_all(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        tasks: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            started = time.monotonic()
            for count, url in zip(itertools.count(), itertools.cycle(self._urls), strict=False):
                due = started + count * self._period_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self._ends.is_set():
                    break
                in_two = count // len(self._urls) % 2 == 1
                task = asyncio.create_task(self._send(session, url, due, in_two=in_two))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    async def _body_later(self) -> AsyncIterator[bytes]:
        await asyncio.sleep(_PACKET_GAP_S)
        yield self._body

    async def _send(self, session: aiohttp.ClientSession, url: str, due: float, *, in_two: bool) -> None:
        status: int | str
        try:
            headers = {"content-type": "application/json", "content-length": str(len(self._body)), **self._headers}
            data = self._body_later() if in_two else self._body
            async with session.post(f"{url}/predict", data=data, headers=headers) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            status = type(error).__name__
        self.replies.append(Reply(url, due, time.monotonic() - due, status))
