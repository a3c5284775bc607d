"""Watch, while a stage runs, whether the machines of the cluster still have room for it.

Ray waits forever for a machine that does not come back. Here the wait is shown, and it ends with an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cluster.errors import ResourceError, UserError
from cluster.plan import Demand, Node, capacity, joined_nodes
from cluster.progress import WORK_THREAD

_LOOK_EVERY_S = 2.0
# Ray ends a process, without a word to the user, once the head has not answered it for 60 s.
_HEAD_SILENT_S = 50.0


class RoomWatch:
    """Counts the room for `demand` on the nodes that are alive, in a thread, while the `with` block runs."""

    def __init__(self, demand: Demand, wait_s: float, nodes: Callable[[], list[Node]] = joined_nodes) -> None:
        """`demand` is the least that the stage can go on with; `wait_s` is the longest time without room for it."""
        self._demand, self._wait_s, self._nodes = demand, wait_s, nodes
        self._room = demand.processes
        self._short_since: float | None = None
        self._answered_at = time.monotonic()
        self._end = threading.Event()
        # The name says that it calls Ray: nobody shuts Ray down before it has ended.
        self._thread = threading.Thread(target=self._watch, daemon=True, name=f"{WORK_THREAD}-room")

    def __enter__(self) -> RoomWatch:
        self._answered_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._end.set()
        self._thread.join(_LOOK_EVERY_S)  # it takes longer only if the head of the cluster does not answer
        # Ray's calls then fail in ways of their own.
        if isinstance(error, Exception) and not isinstance(error, UserError) and self._silent_s > _HEAD_SILENT_S / 5:
            raise self._silence_error() from error

    def check(self) -> str:
        """Return what the stage waits for, "" if there is room. Raises `ResourceError` if that took over `wait_s`.

        Also raises it if the head of the cluster no longer answers.
        """
        if self._silent_s > _HEAD_SILENT_S:
            raise self._silence_error()
        if self._silent_s > _HEAD_SILENT_S / 5:
            return f"waiting for the head of the cluster, {self._silent_s:.0f} s"
        since = self._short_since
        if since is None:
            return ""
        demand = self._demand
        size = f"{demand.cpus_each:g} CPU" + (f" and {demand.gpus_each:g} GPU" if demand.gpus_each else "")
        missing = f"room for {self._room} of {demand.processes} processes with {size} each"
        if time.monotonic() - since > self._wait_s:
            raise ResourceError(
                f"{demand.stage}: machines have left the cluster, and for {self._wait_s:g} s it had {missing}",
                "start machines and resume the run; `cluster.wait_for_machines_s` is how long it waits for them",
            )
        return f"waiting for machines: {missing}"

    @property
    def _silent_s(self) -> float:
        return time.monotonic() - self._answered_at

    def _silence_error(self) -> ResourceError:
        return ResourceError(
            f"{self._demand.stage}: the head of the cluster has not answered for {self._silent_s:.0f} s",
            "see that its machine runs and is reached from here, start Ray there again, and resume the run",
        )

    def _watch(self) -> None:
        while not self._end.wait(_LOOK_EVERY_S):
            try:
                room = capacity(self._nodes(), self._demand.cpus_each, self._demand.gpus_each)
            except Exception:  # the head does not answer
                continue
            self._room, self._answered_at = room, time.monotonic()
            if room >= self._demand.processes:
                self._short_since = None
            elif self._short_since is None:
                self._short_since = time.monotonic()
