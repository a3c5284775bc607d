"""The access log: one JSON line per request, written in a thread.

If the disk is full or too slow, lines are dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from serve.asgi.exchange import Exchange

# Maximum number of lines that wait for a slow disk (requests never wait), and maximum number of bytes of a body in a
# line.
_MAX_LINES, _MAX_BODY_BYTES = 10_000, 4096
_log = logging.getLogger("raymill.serve")
# The line that ends the thread, and how long `close` waits for it.
_END = b""
_CLOSE_WITHIN_S = 2.0


class AccessLog:
    """The log of one replica: `folder`/access-<replica>.jsonl. Lines hold request bodies only if `bodies` is true."""

    def __init__(self, folder: Path, replica: str, *, bodies: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._bodies = folder / f"access-{replica}.jsonl", bodies
        self._lines: queue.Queue[bytes] = queue.Queue(_MAX_LINES)
        self.n_lost = 0
        self._thread = threading.Thread(target=self._run, daemon=True, name="raymill-access-log")
        self._thread.start()

    def write(self, exchange: Exchange, status: int, seconds: float) -> None:
        """Queue the line of a finished request."""
        served, job = exchange.model, exchange.job
        line: dict[str, Any] = {
            "time": time.time(),
            "request_id": exchange.request_id,
            "trace_id": exchange.trace,
            "method": exchange.method,
            "path": exchange.path,
            "status": status,
            "reason": exchange.reason,
            "ms": round(1000 * seconds, 3),
            "key": exchange.key or None,
            "bytes": len(exchange.body),
        }
        if exchange.user:
            line["user"] = exchange.user
        if served is not None:
            line |= {"model": served.identity["name"], "version": served.identity["version"]}
        if job is not None:
            line |= {
                "engine": job.identity["engine"],
                "inputs": len(job.raw),
                "tokens": job.tokens,
                "queue_ms": round(1000 * job.queue_s, 3),
                "preprocess_ms": round(1000 * job.preparing_s, 3),
                "inference_ms": round(1000 * job.computing_s, 3),
            }
        if self._bodies:
            line["body"] = exchange.body[:_MAX_BODY_BYTES].decode("utf-8", errors="replace")
        try:
            self._lines.put_nowait(orjson.dumps(line) + b"\n")
        except queue.Full:
            self.n_lost += 1

    def close(self) -> None:
        """Write the queued lines, for at most 2 s, and end the thread."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(_END)
            self._thread.join(_CLOSE_WITHIN_S)

    def _run(self) -> None:
        lines: list[bytes] = []
        while _END not in lines:
            lines = [self._lines.get()]
            while len(lines) < _MAX_LINES and not self._lines.empty():
                lines.append(self._lines.get_nowait())
            try:
                with open(self._path, "ab", opener=_open_private) as file:
                    file.write(b"".join(lines))
            except OSError as error:
                self.n_lost += len(lines)
                _log.warning("cannot write %s (%s); %d lines are lost so far", self._path, error.strerror, self.n_lost)
                time.sleep(1.0)


def _open_private(path: str, flags: int) -> int:
    """Open a file that only its owner may read."""
    return os.open(path, flags, 0o600)
