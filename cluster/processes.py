"""Find and end the processes of a Ray that this process started."""

from __future__ import annotations

import contextlib

import psutil

#: Ray's daemons, by the name of their executable.
_DAEMONS = frozenset({"raylet", "gcs_server", "haproxy"})
#: The daemons without which Ray does not work.
_CORE_DAEMONS = frozenset({"raylet", "gcs_server"})
# How many words of a command line to search for a path of Ray, as in `python -u .../ray/dashboard/agent.py`.
_WORDS_TO_SEARCH = 12


def ray_processes() -> list[psutil.Process]:
    """Return the descendants of this process that belong to Ray."""
    return [process for process in psutil.Process().children(recursive=True) if _belongs_to_ray(process)]


def core_daemons_are_running() -> bool:
    """Return whether a raylet and a GCS server run among the descendants of this process."""
    names = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                names.add(process.name())
    return names >= _CORE_DAEMONS


def is_ray_worker(process: psutil.Process) -> bool:
    """Return whether a process is a Ray worker, which runs tasks or an actor. Ray's agents are not workers."""
    with contextlib.suppress(psutil.Error):
        first = process.cmdline()[:1]
        return bool(first) and first[0].startswith("ray::") and not first[0].endswith("Agent")
    return False


def end_processes(processes: list[psutil.Process], within_s: float = 1.0) -> None:
    """Send SIGTERM to `processes`, and SIGKILL to those that still run after `within_s`."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=within_s)


def _belongs_to_ray(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()[:_WORDS_TO_SEARCH]
        return any("ray::" in word or "/ray/" in word for word in words) or process.name() in _DAEMONS
    return False
