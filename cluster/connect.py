"""Ray, for as long as a command needs it: started here and stopped again, or joined and left."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import psutil

from cluster.errors import ResourceError
from cluster.progress import work_in_progress

_STOP_WITHIN_S = 1.5


_STOP_WORKERS_WITHIN_S = 0.3


# Whether a Ray that `connect` started is up: one that somebody else started is not ours to look after.
_started: list[bool] = []


# Set while work that was interrupted is ended: it must not take the end of its processes for a fault to recover from.
_stopping = threading.Event()


def joins(address: str | None) -> bool:
    """Whether `connect(address)` would join a cluster; else the Ray is this machine's alone."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def connect(address: str | None, *, cpus: int | None = None, quiet: bool = True) -> Iterator[None]:
    """Yield with Ray connected.

    Without an `address` a Ray is started on this machine's loopback and stopped at the end, with two exceptions: a Ray
    this process already has is used and left alone, and inside a Ray job (RAY_ADDRESS is set there) the job's cluster
    is joined. Raises `ResourceError` when an address does not answer.
    """
    import ray

    if ray.is_initialized():
        if _stopping.is_set():
            raise ResourceError("the work that was interrupted before has not ended", "start Python anew")
        yield
        return
    _stopping.clear()
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        with _own_sigterm():
            _join(address, quiet)
        try:
            yield
        finally:
            if not work_in_progress():  # else it ends with this process, as in `stop_local`
                ray.shutdown()
        return
    with _own_sigterm():
        _start(cpus, quiet)
    _started.append(True)
    try:
        yield
    except KeyboardInterrupt:
        # Work that still goes on in another thread must not start a Ray of its own with its next call.
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
        _stopping.set()
        raise
    finally:
        _started.clear()
        stop_local()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the process's own SIGTERM handler: `ray.init` puts one of its own in, which aborts the process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _start(cpus: int | None, quiet: bool) -> None:
    import ray

    # Both are read when Ray starts: nothing is sent anywhere, and nothing waits for the metrics agent.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    # Where Ray itself is killed, the work ends in seconds and not in a minute.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    try:
        ray.init(
            address="local",  # without it Ray would join whatever `ray start` left in /tmp/ray
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=not quiet,
            logging_level=logging.ERROR if quiet else logging.INFO,
            _node_ip_address="127.0.0.1",
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise ResourceError(
            f"Ray could not be started here: {error}", "run `raymill doctor`; look into /tmp/ray"
        ) from error


def _join(address: str, quiet: bool) -> None:
    import ray

    if ":" in address and address != "auto" and not address.startswith("local"):
        _must_answer(address)
    try:
        ray.init(
            address=address,
            log_to_driver=not quiet,
            logging_level=logging.ERROR if quiet else logging.INFO,
        )
    except (ConnectionError, RuntimeError, OSError, ValueError, TimeoutError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResourceError(
            f"cluster.address={address!r} does not answer: {first_line}",
            "start it with `ray start --head`, correct the address, or leave it out to run on this machine",
        ) from error


def _must_answer(address: str) -> None:
    """Fail in a second where Ray's own client would try for half a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"cluster.address={address!r} does not answer: {error}",
            "start it with `ray start --head`, correct the address, or leave it out to run on this machine",
        ) from error


def stop_local(within_s: float = _STOP_WITHIN_S) -> None:
    """Stop the Ray that this process started: politely for `within_s`, then its processes by pid.

    Work that was interrupted, or an endpoint's end, may still wait for Ray in its thread, and Ray ends a process in which
    anything uses it once it is shut down: what that work waits for is ended first, and where it goes on all the same, Ray's
    processes are just ended.
    """
    import ray

    ours = _rays_processes()
    working = work_in_progress()
    if working:
        end_processes([process for process in ours if _is_worker(process)], within_s=_STOP_WORKERS_WITHIN_S)
        deadline = time.monotonic() + within_s
        for thread in working:
            thread.join(max(0.0, deadline - time.monotonic()))
        ours = [*ours, *_rays_processes()]
    if not work_in_progress():
        polite = threading.Thread(target=ray.shutdown, daemon=True, name="raymill-ray-shutdown")
        polite.start()
        polite.join(within_s)
    end_processes(ours)


def is_stopping() -> bool:
    """Whether the work of this process was interrupted and is being ended."""
    return _stopping.is_set()


def local_ray_is_gone() -> bool:
    """Whether the Ray that `connect` started has ended, as when somebody killed it, or is being stopped."""
    if _stopping.is_set():
        return True
    if not _started:
        return False
    names = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                names.add(process.name())
    return not {"raylet", "gcs_server"} <= names


def _rays_processes() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if _is_rays(process)]


def _is_rays(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return any("ray::" in word or "/ray/" in word for word in words[:12]) or process.name() in {
            "raylet",
            "gcs_server",
            "haproxy",
        }
    return False


def _is_worker(process: psutil.Process) -> bool:
    """Whether it runs tasks or an actor; Ray's agents are no workers."""
    with contextlib.suppress(psutil.Error):
        first = process.cmdline()[:1]
        return bool(first) and first[0].startswith("ray::") and not first[0].endswith("Agent")
    return False


def end_processes(processes: list[psutil.Process], within_s: float = 1.0) -> None:
    """End `processes`: SIGTERM, and SIGKILL for what is left after `within_s`."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=within_s)
