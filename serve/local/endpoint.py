"""An endpoint without Ray: this process holds the listening socket and watches the process that serves.

If the serving process dies, another one is started. Meanwhile connections wait in the socket's backlog, so their
requests are late but do not fail. The models and all HTTP are in the serving process (`serve.local.server`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from cluster import errors
from cluster.errors import ModelError, RaymillError, ResourceError, UserError
from cluster.ports import bind_port, http_url
from cluster.python_child import PythonChild
from serve.haproxy import port_error
from serve.model.settings import ReplicaSettings
from trainer.registry.registry import Version
from trainer.spec.serve import ServeSpec

# The function that the serving process runs, and how long it may take to end, beyond `serve.drain_s`.
_ENTRY, _END_WITHIN_S = "serve.local.server:run_server", 6.0
# How many serving processes in a row may die before one of them is ready.
_MAX_EARLY_DEATHS = 5
# Pause before another serving process is started, for each early death. It leaves a busy machine time to recover.
_PAUSE_S = 0.5


def fits_one_process(spec: ServeSpec) -> bool:
    """Return whether an endpoint needs no Ray Serve: it has one replica, without a GPU, and no proxy is asked for."""
    return spec.replicas == 1 and spec.gpus_per_replica == 0 and spec.proxy == "auto"


class LocalEndpoint:
    """An endpoint in one serving process. `start` returns when it answers; `stop` ends it."""

    def __init__(
        self,
        version: Version,
        spec: ServeSpec,
        settings: ReplicaSettings,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Bind the spec's address. `version` is the first model in `settings`.

        `say` is called in a thread with lines for the user. Raises `ResourceError` if the address is taken.
        """
        self._version, self._spec, self._say = version, spec, say
        try:
            self._socket = bind_port(spec.host, spec.port)
        except OSError as error:
            raise port_error(spec.host, spec.port) from error
        self._argument = {
            "settings": settings.model_dump(mode="json"),
            "socket": self._socket.fileno(),
        }
        self._threads = settings.models[0].threads
        self.url = http_url(spec.host, spec.port)
        self._child: PythonChild | None = None
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._failure: RaymillError | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name="raymill-supervisor")

    def start(self) -> None:
        """Start the serving process and wait until it answers.

        Raises `ModelError` if it rejects a model, and `RaymillError` if it cannot serve for another reason.
        """
        self._thread.start()
        self._ready.wait()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise the error because of which nothing serves any more, if there is one."""
        if self._failure is not None:
            raise self._failure

    def wait_for_engine(self, model: str, engine: str) -> None:
        """Do nothing: the serving process itself says when it computes with another engine."""

    def stop(self, within_s: float = 0.0) -> None:
        """Accept no more connections, wait until the requests in flight are answered, and end the serving process.

        Kills the process if that takes much longer than `serve.drain_s`, or on Ctrl-C. `within_s` is for Ray Serve.
        """
        with self._lock:
            self._stopping.set()
            child = self._child
        self._socket.close()
        if child is None:
            return
        child.send({"stop": True})
        try:
            # A process that still loads its models has nothing to finish.
            child.wait(self._spec.drain_s + _END_WITHIN_S if self._ready.is_set() else 0)
        finally:
            child.kill()

    # -- the supervising thread

    def _run(self) -> None:
        n_early_deaths = 0
        while (child := self._start_child()) is not None:
            was_ready = self._follow(child)
            code = child.wait()
            if self._stopping.is_set() or self._failure is not None:
                break
            n_early_deaths = 0 if was_ready else n_early_deaths + 1
            reason = _exit_reason(code)
            if n_early_deaths == _MAX_EARLY_DEATHS:
                self._failure = _early_death(self._version, reason)
                break
            self._say(f"the serving process {reason}; starting another one")
            self._stopping.wait(_PAUSE_S * n_early_deaths)
        if not self._stopping.is_set():
            self._socket.close()  # nothing will accept the connections that wait
        self._ready.set()

    def _start_child(self) -> PythonChild | None:
        """Start a serving process; return None if the endpoint is being stopped."""
        with self._lock:
            if self._stopping.is_set():
                return None
            self._child = PythonChild(
                _ENTRY,
                self._argument,
                title=f"raymill serve {self._version.ref}",
                threads=self._threads,
                descriptors=[self._socket.fileno()],
            )
            return self._child

    def _follow(self, child: PythonChild) -> bool:
        """Handle the messages of a serving process until it ends; return whether it was ready."""
        was_ready = False
        for message in child.messages():
            if "ready" in message:
                was_ready = True
                self._ready.set()
            elif "say" in message:
                self._say(message["say"])
            elif "error" in message:
                self._failure = _start_error(self._version, message["error"])
        return was_ready


def _start_error(version: Version, described: dict[str, Any]) -> RaymillError:
    """Return the error to raise for the error that the serving process has described."""
    kind, problem, fix = described["kind"], described["problem"], described["fix"]
    if kind == ModelError.__name__:
        return ModelError(f"{version.ref} cannot be served: {problem}", fix)
    error_type = getattr(errors, kind, None) if kind else None
    if isinstance(error_type, type) and issubclass(error_type, UserError):
        return error_type(problem, fix)
    return RaymillError(f"{version.ref} could not be started: {problem}")


def _early_death(version: Version, reason: str) -> ResourceError:
    return ResourceError(
        f"{version.ref} could not be started: the serving process {reason} {_MAX_EARLY_DEATHS} times before it was ready",
        "free memory if another program needs it; read the serving process's output in the run's folder, "
        "or show it with `--verbose`",
    )


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
