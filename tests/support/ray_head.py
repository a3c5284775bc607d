"""A real Ray head with ports and folders of its own."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from cluster.ports import free_port
from support.commands import RunningCommand

RAY = Path(sys.executable).parent / "ray"
# Small, so that a test can fill it.
_STORE_BYTES = 160_000_000


class RayHead:
    """`ray start --head` on 2 cores."""

    def __init__(self, folder: Path) -> None:
        self.port, self.dashboard, self.metrics = free_port(), free_port(), free_port()
        self.running = RunningCommand(
            RAY,
            *("start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", "--disable-usage-stats"),
            f"--port={self.port}",
            f"--dashboard-port={self.dashboard}",
            f"--ray-client-server-port={free_port()}",
            f"--dashboard-agent-listen-port={free_port()}",
            f"--metrics-export-port={self.metrics}",
            f"--object-store-memory={_STORE_BYTES}",
            f"--temp-dir={folder}",
        )

    @property
    def address(self) -> str:
        """The address that drivers join."""
        return f"127.0.0.1:{self.port}"

    @property
    def jobs_url(self) -> str:
        """The address that jobs are submitted to."""
        return f"http://127.0.0.1:{self.dashboard}"

    def stop(self) -> None:
        """End what the head started and then itself, by pid (its own shutdown takes up to 35 s)."""
        for process in self.running.descendants():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.running.terminate()


@contextlib.contextmanager
def ray_head() -> Iterator[RayHead]:
    """Yield a head that is up, and stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="rm", dir="/tmp"))  # the paths of sockets must be short
    head = RayHead(folder)
    try:
        head.running.wait_for_line("Ray runtime started", 120)
        yield head
    finally:
        head.stop()
        shutil.rmtree(folder, ignore_errors=True)
