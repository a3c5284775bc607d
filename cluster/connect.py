"""Connect to Ray while a command runs: start a local Ray and stop it again, or join a cluster and leave it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from cluster.errors import ResourceError, UserError, first_line
from cluster.import_guard import job_environment
from cluster.machine import count_cores
from cluster.process_setup import limit_spinning
from cluster.processes import core_daemons_are_running, end_processes, is_ray_worker, ray_processes
from cluster.progress import running_work
from cluster.ray_address import RayAddress, find_address
from cluster.ray_internals import node_address_option, without_unused_daemons
from cluster.ray_token import provide_token
from cluster.temporary_folders import ray_log_folder, ray_temporary_folder

_STOP_WITHIN_S = 1.5
_STOP_WORKERS_WITHIN_S = 0.3
_START_ATTEMPTS = 2
_LOOPBACK = "127.0.0.1"


class LocalRay:
    """The Ray that this process starts on its machine. It never stops a Ray that another process started."""

    def __init__(self) -> None:
        self._is_started = False
        # Set while interrupted work ends. Its processes are killed on purpose, so nothing should try to recover.
        self._stopping = threading.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether the work of this process was interrupted and is being stopped."""
        return self._stopping.is_set()

    @property
    def is_gone(self) -> bool:
        """Whether the Ray that was started is being stopped, or has ended, for example because it was killed."""
        if self.is_stopping:
            return True
        return self._is_started and not core_daemons_are_running()

    def forget_interrupt(self) -> None:
        """Clear `is_stopping`: the interrupted work has ended and new work starts."""
        self._stopping.clear()

    def start(self, cpus: int | None, *, quiet: bool) -> None:
        """Start Ray with `cpus` cores, or all of them if None. Raises `ResourceError` if Ray does not start."""
        own_variables = sorted(name for name in os.environ if name.startswith("RAY_"))
        # Ray reads these variables when it starts. Send no usage statistics, and do not wait for the metrics agent.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        # Nodes of a cluster may be taken away, the machine of a local Ray is not: each training needs one actor less.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Fail within seconds, not Ray's default of a minute, if the Ray head is killed.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
        provide_token()
        limit_spinning()  # of the workers
        try:
            self._start_node(cpus or count_cores(), quiet)
        except UserError:
            raise
        except Exception as error:  # Ray raises errors of no particular class, too
            raise ResourceError(
                f"Ray does not start on this machine: {first_line(error)}",
                f"run `raymill doctor`; if the machine was busy, try again; Ray's logs are in {ray_log_folder()}"
                + (
                    f"; unset {', '.join(own_variables)} if you do not need them: Ray obeys them"
                    if own_variables
                    else ""
                ),
            ) from error
        self._is_started = True

    def _start_node(self, cpus: int, quiet: bool) -> None:
        """Start Ray. Try once more if its daemons did not answer in time, as may happen on a busy machine."""
        import ray

        for attempt in range(_START_ATTEMPTS):
            try:
                with _keep_sigterm_handler(), ray_temporary_folder(), without_unused_daemons(log_monitor=not quiet):
                    ray.init(
                        address="local",  # otherwise Ray joins a cluster that `ray start` left in /tmp/ray
                        num_cpus=cpus,
                        include_dashboard=False,
                        log_to_driver=not quiet,
                        logging_level=_logging_level(quiet),
                        runtime_env=job_environment() or None,
                        **node_address_option(_LOOPBACK),
                    )
                return
            except Exception as error:
                # Ray's error for this has no class of its own.
                if attempt + 1 == _START_ATTEMPTS or "timed out" not in str(error):
                    raise
                self.stop()

    def interrupt(self) -> None:
        """Record that the user interrupted the work."""
        # Otherwise the next call to Ray in a thread that still works would start another Ray.
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
        self._stopping.set()

    def stop(self, within_s: float = _STOP_WITHIN_S) -> None:
        """Shut Ray down within `within_s`, then end the processes that are left.

        Threads of interrupted work, or threads that stop an endpoint, may still call Ray, and Ray aborts a process that
        calls it after a shutdown. So Ray's workers are ended first, which ends the calls. If the threads still run
        after `within_s`, Ray is not shut down: only its processes are ended.
        """
        import ray

        self._is_started = False
        processes = ray_processes()
        threads = running_work()
        if threads:
            workers = [process for process in processes if is_ray_worker(process)]
            end_processes(workers, within_s=_STOP_WORKERS_WITHIN_S)
            deadline = time.monotonic() + within_s
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            processes = [*processes, *ray_processes()]
        if not running_work():
            shutdown = threading.Thread(target=ray.shutdown, daemon=True, name="raymill-ray-shutdown")
            shutdown.start()
            shutdown.join(within_s)
        end_processes(processes)


#: The one local Ray of this process.
local_ray = LocalRay()


def joins_cluster(address: str | None) -> bool:
    """Return whether `connect_to_ray(address)` joins a cluster. If not, it uses a Ray on this machine."""
    return find_address(address) is not None


def is_connected() -> bool:
    """Return whether this process is connected to a Ray. Does not import Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def asks_for_ray(address: str | None) -> bool:
    """Return whether Ray is to be used even for work that does not need it: an address or a connected Ray asks for it."""
    return bool(address) or joins_cluster(None) or is_connected()


@contextlib.contextmanager
def connect_to_ray(
    address: str | None, *, source: str = "cluster.address", cpus: int | None = None, quiet: bool = True
) -> Iterator[None]:
    """Connect to Ray while the block runs.

    If this process is already connected, use that Ray and leave it running. Otherwise join the cluster at `address`, or
    at RAY_ADDRESS, which is set inside a Ray job. Without an address, or with `local`, start Ray on this machine's
    loopback interface and stop it at the end. `source` names the key or option that gives `address`. Raises
    `ResourceError` if an address does not answer.
    """
    import ray

    if is_connected():
        if local_ray.is_stopping:
            raise ResourceError("the interrupted work has not ended yet", "start a new Python process")
        yield
        return
    local_ray.forget_interrupt()
    cluster = find_address(address, source)
    if cluster is not None:
        _join(cluster, quiet)
        try:
            yield
        finally:
            if not running_work():  # a thread that still calls Ray would abort this process: see `LocalRay.stop`
                ray.shutdown()
        return
    local_ray.start(cpus, quiet=quiet)
    try:
        yield
    except KeyboardInterrupt:
        local_ray.interrupt()
        raise
    finally:
        local_ray.stop()


def _join(address: RayAddress, quiet: bool) -> None:
    import ray

    address.check()
    try:
        with _keep_sigterm_handler():
            ray.init(
                address=address.value,
                log_to_driver=not quiet,
                logging_level=_logging_level(quiet),
                runtime_env=job_environment() or None,
            )
    except (ConnectionError, RuntimeError, OSError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        raise address.no_answer(error) from error


@contextlib.contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the process's SIGTERM handler after the block: `ray.init` installs a handler that aborts the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _logging_level(quiet: bool) -> int:
    return logging.ERROR if quiet else logging.INFO
