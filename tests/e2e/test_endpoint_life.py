"""An endpoint over time: it scales with the load, recovers from killed processes, and does not leak."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time

import httpx
import psutil
import pytest

from cluster.ports import free_port
from support.commands import RunningCommand
from support.timing import wait_until

pytestmark = pytest.mark.long

TEXT = {"inputs": ["my good dog"]}
# Length of the soak test. Run a longer one by hand: `SOAK_S=1800 pytest tests/e2e/test_endpoint_life.py`.
SOAK_S = float(os.environ.get("SOAK_S", 100))
SOAK_PER_S, SOAK_WARM_S = 15, 45
# Memory that a process may gain for buffers.
_BUFFERS_MB = 12
# Requests of one client at the same time. On a busy machine it sends fewer a second, so that none waits for minutes.
_AT_ONCE = 20


def start_endpoint(storage, *options):
    """Start an endpoint and return its command, with its URL as `url`."""
    arguments = ["-m", "raymill", "serve", "tiny@champion", "--storage", storage, "--port", free_port()]
    running = RunningCommand(*arguments, *options)
    try:
        running.url = running.wait_for_line("listening on").split()[-1]
    except BaseException:
        running.terminate()
        raise
    return running


def pids(running, name):
    """Return the pids of the endpoint's processes called `name`."""
    return {process.pid for process in running.processes(name)}


class Client(threading.Thread):
    """Sends up to `per_s` requests a second until `stop`; records the time and the status or error of each."""

    def __init__(self, url, per_s):
        super().__init__(daemon=True)
        self.url, self.per_s = url, per_s
        self.results = []
        self.stopping = threading.Event()

    def run(self):
        asyncio.run(self._send_requests())

    def stop(self):
        self.stopping.set()
        self.join(150)
        assert not self.is_alive()
        return self.results

    @property
    def failed(self):
        return [(ended, status) for ended, status in self.results if status != 200]

    async def _send_requests(self):
        async def send(session):
            try:
                status = (await session.post("/predict", json=TEXT)).status_code
            except httpx.HTTPError as error:
                status = f"{type(error).__name__}: {error}"
            self.results.append((time.monotonic(), status))

        async with httpx.AsyncClient(base_url=self.url, timeout=120) as session:
            running, started = set(), time.monotonic()
            for number in range(10**9):
                if self.stopping.is_set():
                    break
                await asyncio.sleep(max(0.0, started + number / self.per_s - time.monotonic()))
                if len(running) >= _AT_ONCE:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(send(session))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)


# -- the soak runs beside the other tests of this file


class Soak:
    """An endpoint under constant load, and the resources of its processes once they are warm."""

    def __init__(self, running):
        self.running, self.started = running, time.monotonic()
        self.client = Client(running.url, SOAK_PER_S)
        self.client.start()
        self.warm = None
        self.timer = threading.Timer(SOAK_WARM_S, lambda: setattr(self, "warm", self.resources()))
        self.timer.daemon = True
        self.timer.start()

    def resources(self):
        """Return memory in MB, file descriptors and threads by (name, pid) of each process that handles requests."""
        resources = {}
        for name in ("ray::ServeReplica", "ray::HAProxyManager", "haproxy", "ray::ServeController"):
            for process in self.running.processes(name):
                with contextlib.suppress(psutil.Error):
                    resources[name, process.pid] = (
                        process.memory_full_info().uss / 1e6,
                        process.num_fds(),
                        process.num_threads(),
                    )
        return resources


@pytest.fixture(scope="module")
def soak(first_run, storage):
    running = start_endpoint(storage, "--set", "serve.proxy=haproxy")  # on Ray Serve, although it has one replica
    soak = Soak(running)
    try:
        yield soak
    finally:
        soak.timer.cancel()
        soak.client.stopping.set()
        running.terminate()


def test_the_number_of_replicas_follows_the_load(soak, storage):
    """From zero to two and back; requests in between wait, and none is rejected."""
    settings = ("replicas=[0,2]", "downscale_delay_s=4", "target_ongoing_requests=1", "timeout_s=120")
    running = start_endpoint(storage, *[word for setting in settings for word in ("--set", f"serve.{setting}")])
    replicas = lambda: running.processes("ray::ServeReplica")  # noqa: E731
    try:
        busy = [Client(running.url, 20), Client(running.url, 20)]
        wait_until(lambda: not replicas(), within_s=120, what="no replica runs without requests")
        for client in busy:
            client.start()
        wait_until(lambda: len(replicas()) == 1, within_s=120, what="the first request starts a replica")
        wait_until(lambda: busy[0].results, within_s=120, what="the first answer")
        crowd = [Client(running.url, 30) for _ in range(4)]
        for client in crowd:
            client.start()
        wait_until(lambda: len(replicas()) == 2, within_s=240, what="a second replica for the crowd")
        for client in [*crowd, *busy]:
            client.stop()
            assert client.results and not client.failed, client.failed[:3]
        wait_until(lambda: not replicas(), within_s=240, what="no replica is left")
        started = time.monotonic()
        assert httpx.post(f"{running.url}/predict", json=TEXT, timeout=120).status_code == 200
        print(f"from zero replicas to the first answer: {time.monotonic() - started:.1f} s")
    finally:
        running.terminate()


def test_killed_processes_are_replaced(soak, storage):
    """kill -9 of Serve's controller, its proxies and HAProxy, one after the other."""
    running = start_endpoint(storage, "--replicas", 2, "--set", "serve.retries=1")
    try:
        client = Client(running.url, 30)
        client.start()
        for name, may_fail in (
            ("ray::ServeController", False),
            ("ray::ProxyActor", False),
            ("haproxy", True),
            ("ray::HAProxyManager", True),
        ):
            before = running.processes(name)
            killed_at = time.monotonic()
            for process in before:
                process.send_signal(signal.SIGKILL)
            killed_pids = {process.pid for process in before}
            wait_until(
                lambda name=name, killed_pids=killed_pids: pids(running, name) - killed_pids,
                within_s=240,
                what=f"a new {name}",
            )
            # Twenty answers in a row count as recovered.
            wait_until(
                lambda: len(client.results) > 20 and all(status == 200 for _, status in client.results[-20:]),
                within_s=240,
                what=f"answers after {name} was killed",
            )
            failed = [ended - killed_at for ended, _ in client.failed if ended >= killed_at]
            print(f"{name}: {len(failed)} requests failed, the last {max(failed, default=0):.1f} s after the kill")
            assert may_fail or not failed, client.failed[:3]
        # The new controller and proxy still replace a replica that dies.
        replica = running.processes("ray::ServeReplica")[0]
        killed_at = time.monotonic()
        replica.send_signal(signal.SIGKILL)
        wait_until(
            lambda: len(pids(running, "ray::ServeReplica") - {replica.pid}) == 2,
            within_s=240,
            what="a new replica",
        )
        client.stop()
        assert not [status for ended, status in client.failed if ended >= killed_at]
    finally:
        running.terminate()


@pytest.mark.timeout(SOAK_S + 300)
def test_a_long_load_leaks_no_memory_and_no_handles(soak):
    """At the end each process holds at most 5 % more memory than after the first 45 s, or 12 MB more for buffers.

    Every request was answered.
    """
    wait_until(lambda: time.monotonic() - soak.started > SOAK_S, within_s=SOAK_S + 60, what="the end of the soak")
    at_the_end = soak.resources()
    results = soak.client.stop()
    assert len(results) > SOAK_S * SOAK_PER_S * 0.2 and not soak.client.failed, soak.client.failed[:3]
    assert soak.warm and set(at_the_end) == set(soak.warm), "a process was lost or replaced"

    def grown(resources):
        """Return the processes with over 5 more handles or threads than when warm, with both counts."""
        pairs = {process: (soak.warm[process][1:], resources[process][1:]) for process in resources}
        return {
            process: (before, now)
            for process, (before, now) in pairs.items()
            if any(more > count + 5 for count, more in zip(before, now, strict=True))
        }

    # After a slow moment HAProxy has more connections open, and closes them once they are idle.
    wait_until(
        lambda: not grown(soak.resources()), within_s=120, what=f"handles and threads as when warm: {grown(at_the_end)}"
    )
    for process, (mb, handles, threads) in at_the_end.items():
        before_mb, before_handles, _ = soak.warm[process]
        print(f"{process[0]}: {before_mb:.1f} to {mb:.1f} MB, {before_handles} to {handles} handles, {threads} threads")
        assert mb <= before_mb + max(0.05 * before_mb, _BUFFERS_MB), process
