"""An endpoint over time: it follows the load, comes back after its parts were killed, and holds its memory and its contract."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.ports import free_port
from support.commands import RunningCommand
from support.timing import wait_until

TEXT = {"inputs": ["my good dog"]}
ST = Path(sys.executable).parent / "st"
# The soak: longer by hand, as `SOAK_S=1800 pytest tests/e2e/test_endpoint_life.py`.
SOAK_S = float(os.environ.get("SOAK_S", 180))
SOAK_PER_S, SOAK_WARM_S = 15, 45
_BUFFERS_MB = 12


def served(storage, *more):
    """Start an endpoint; returns it with its URL."""
    words = ["-m", "raymill", "serve", "tiny@champion", "--storage", storage, "--port", free_port()]
    running = RunningCommand(*words, *more)
    try:
        running.url = running.wait_for("listening on").split()[-1]
    except BaseException:
        running.end()
        raise
    return running


class Client(threading.Thread):
    """Asks so often a second until it is told to stop; keeps when and how each request ended."""

    def __init__(self, url, per_s):
        super().__init__(daemon=True)
        self.url, self.per_s = url, per_s
        self.found = []
        self.over = threading.Event()

    def run(self):
        asyncio.run(self._ask())

    def stop(self):
        self.over.set()
        self.join(150)
        assert not self.is_alive()
        return self.found

    @property
    def failed(self):
        return [(at, how) for at, how in self.found if how != 200]

    async def _ask(self):
        async def one(session):
            try:
                how = (await session.post("/predict", json=TEXT)).status_code
            except httpx.HTTPError as error:
                how = f"{type(error).__name__}: {error}"
            self.found.append((time.monotonic(), how))

        async with httpx.AsyncClient(base_url=self.url, timeout=120) as session:
            running, began = set(), time.monotonic()
            for number in range(10**9):
                if self.over.is_set():
                    break
                await asyncio.sleep(max(0.0, began + number / self.per_s - time.monotonic()))
                task = asyncio.create_task(one(session))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)


# -- the soak goes on beside the other tests of this file


class Soak:
    """An endpoint that is asked all the time, and what its processes held once they were warm."""

    def __init__(self, running):
        self.running, self.began = running, time.monotonic()
        self.client = Client(running.url, SOAK_PER_S)
        self.client.start()
        self.warm = None
        self.timer = threading.Timer(SOAK_WARM_S, lambda: setattr(self, "warm", self.held()))
        self.timer.daemon = True
        self.timer.start()

    def held(self):
        """Return the memory in MB, handles and threads of each process that takes part in a request."""
        found = {}
        for name in ("ray::ServeReplica", "ray::HAProxyManager", "haproxy", "ray::ServeController"):
            for process in self.running.parts(name):
                with contextlib.suppress(psutil.Error):
                    found[name, process.pid] = (
                        process.memory_full_info().uss / 1e6,
                        process.num_fds(),
                        process.num_threads(),
                    )
        return found


@pytest.fixture(scope="module")
def soak(first_run, storage):
    running = served(storage)
    found = Soak(running)
    try:
        yield found
    finally:
        found.timer.cancel()
        found.client.over.set()
        running.end()


def test_what_the_schema_says_is_so(soak, tmp_path):
    """schemathesis asks all paths for what the schema has and what it does not; texts that the task refuses are the task's."""
    words = [
        ST,
        "run",
        f"{soak.running.url}/openapi.json",
        "--max-examples=50",
        "--seed=1",
        "--no-color",
        "--workers=1",
    ]
    words += ["--checks=all", "--exclude-checks=positive_data_acceptance"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 200


def test_the_number_of_replicas_follows_the_load(soak, storage):
    """From none to two and back; who asks meanwhile waits, and nobody is refused."""
    settings = ("replicas=[0,2]", "downscale_delay_s=4", "target_ongoing_requests=1", "timeout_s=120")
    running = served(storage, *[word for each in settings for word in ("--set", f"serve.{each}")])
    replicas = lambda: running.parts("ray::ServeReplica")  # noqa: E731
    try:
        busy = [Client(running.url, 20), Client(running.url, 20)]
        wait_until(lambda: not replicas(), within_s=120, what="nothing runs that nobody asks for")
        for client in busy:
            client.start()
        wait_until(lambda: len(replicas()) == 1, within_s=120, what="the first request starts one")
        wait_until(lambda: busy[0].found, within_s=120, what="it is answered")
        crowd = [Client(running.url, 30) for _ in range(4)]
        for client in crowd:
            client.start()
        wait_until(lambda: len(replicas()) == 2, within_s=90, what="a second one for the crowd")
        for client in [*crowd, *busy]:
            client.stop()
            assert client.found and not client.failed, client.failed[:3]
        wait_until(lambda: not replicas(), within_s=90, what="back to none")
        began = time.monotonic()
        assert httpx.post(f"{running.url}/predict", json=TEXT, timeout=120).status_code == 200
        print(f"from nothing to the first answer: {time.monotonic() - began:.1f} s")
    finally:
        running.end()


def test_what_is_killed_comes_back(soak, storage):
    """HAProxy, Serve's proxies and its controller, one after the other, by kill -9."""
    running = served(storage, "--replicas", 2, "--set", "serve.retries=1")
    try:
        client = Client(running.url, 30)
        client.start()
        for name, may_fail in (
            ("ray::ServeController", False),
            ("ray::ProxyActor", False),
            ("haproxy", True),
            ("ray::HAProxyManager", True),
        ):
            before = running.parts(name)
            killed = time.monotonic()
            for process in before:
                process.send_signal(signal.SIGKILL)
            gone = {process.pid for process in before}
            wait_until(
                lambda name=name, gone=gone: {each.pid for each in running.parts(name)} - gone,
                within_s=90,
                what=f"another {name}",
            )
            # Twenty answers in a row: it is back.
            wait_until(
                lambda: len(client.found) > 20 and all(how == 200 for _, how in client.found[-20:]),
                within_s=60,
                what=f"answers after {name} was killed",
            )
            failed = [at - killed for at, how in client.failed if at >= killed]
            print(f"{name}: {len(failed)} requests failed, the last {max(failed, default=0):.1f} s after the kill")
            assert may_fail or not failed, client.failed[:3]
        # The new controller and proxy still replace a replica that dies.
        lost = running.parts("ray::ServeReplica")[0]
        killed = time.monotonic()
        lost.send_signal(signal.SIGKILL)
        wait_until(
            lambda: len({each.pid for each in running.parts("ray::ServeReplica")} - {lost.pid}) == 2,
            within_s=60,
            what="a new replica",
        )
        client.stop()
        assert not [how for at, how in client.failed if at >= killed]
    finally:
        running.end()


@pytest.mark.timeout(SOAK_S + 300)
def test_a_long_load_takes_no_more_memory_and_no_more_handles(soak):
    """What was held after the first 45 s is held at the end, give or take a twentieth, or what a small process keeps for
    buffers; every request was answered."""
    wait_until(lambda: time.monotonic() - soak.began > SOAK_S, within_s=SOAK_S + 60, what="the time of the soak")
    loaded = soak.held()
    found = soak.client.stop()
    assert len(found) > SOAK_S * SOAK_PER_S * 0.8 and not soak.client.failed, soak.client.failed[:3]
    assert soak.warm and set(loaded) == set(soak.warm), "a process was lost or replaced"

    def grown(held):
        """Return the processes with more handles or threads than when warm, with both counts."""
        pairs = {each: (soak.warm[each][1:], held[each][1:]) for each in held}
        return {
            each: (was, now)
            for each, (was, now) in pairs.items()
            if any(b > a + 5 for a, b in zip(was, now, strict=True))
        }

    # A moment's slowness makes HAProxy open more connections, which it closes again when nobody uses them.
    wait_until(lambda: not grown(soak.held()), within_s=120, what=f"handles and threads as when warm: {grown(loaded)}")
    for process, (mb, handles, threads) in loaded.items():
        before_mb, before_handles, _ = soak.warm[process]
        print(f"{process[0]}: {before_mb:.1f} to {mb:.1f} MB, {before_handles} to {handles} handles, {threads} threads")
        assert mb <= before_mb + max(0.05 * before_mb, _BUFFERS_MB), process
