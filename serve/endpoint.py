"""Start and stop an endpoint on Ray Serve from a driver process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import ray.serve
from ray.exceptions import RayActorError
from ray.serve.schema import ApplicationStatus

from cluster.errors import ModelError, RaymillError, ResourceError
from cluster.ports import http_url
from cluster.progress import WORK_THREAD
from cluster.ray_internals import broadcast_answers, serve_address, serve_is_running
from cluster.temporary_folders import ray_log_folder
from serve.app import build_application
from serve.haproxy import check_access, owns_proxy
from serve.model.engine_watcher import engine_report
from serve.model.settings import ReplicaSettings
from trainer.registry.registry import Version
from trainer.spec.serve import ServeSpec

# The start of the second line of a `UserError`.
_FIX = "fix:"
# Lines in the message of a dead actor that only identify the process.
_IDS = ("actor_id:", "pid:", "namespace:", "ip:")
_MAX_REASON = 600
# How long replicas may take to answer a question of this process. After an engine was chosen: how often they are asked
# which one they use, and for how long.
_ASK_WITHIN_S, _ENGINE_EVERY_S, _ENGINE_WITHIN_S = 5.0, 1.0, 60.0
# While the endpoint drains: how often to ask the replicas for their requests, how often none must have any, so that the
# last answers are on their way through the proxy, and how long the end may take beyond `serve.drain_s`.
_DRAIN_EVERY_S, _QUIET_LOOKS, _DRAIN_SLACK_S = 0.25, 3, 3.0


class RayEndpoint:
    """An endpoint on the connected Ray. `start` returns when all replicas are ready; `stop` ends it, also after an error."""

    def __init__(
        self,
        version: Version,
        spec: ServeSpec,
        settings: ReplicaSettings,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`version` is the first model in `settings`; the application gets its name.

        `say` is called in a thread with lines for the user.
        """
        self._version, self._spec, self._settings, self._say = version, spec, settings, say
        self._name = version.name
        self._owns_serve = False
        """Whether Ray Serve was started for this endpoint, and so must be shut down with it."""
        self._stopping = threading.Event()
        self.url = ""

    def start(self) -> None:
        """Start the replicas and wait until all of them are ready.

        Raises `ModelError` if a replica rejects a model because of its golden rows or digests. Raises `ResourceError` if
        the address is taken, if Ray Serve already runs another application, or if one of Ray Serve's own processes ends
        or does not answer while it starts.
        """
        spec = self._spec
        check_access(spec)
        app = build_application(self._settings, spec)
        starts_serve = not serve_is_running()
        if not starts_serve:
            _check_no_other_application(self._name)
            check_access(spec.model_copy(update={"host": serve_address().host}))
        try:
            ray.serve.start(
                proxy_location="HeadOnly",
                # Our HAProxy listens on the spec's address; the replicas behind it listen on loopback only.
                http_options={
                    "host": "127.0.0.1" if owns_proxy() else spec.host,
                    "port": spec.port,
                    # A stream may be longer. Replicas limit the time until its first token, and between tokens.
                    "request_timeout_s": None if self._settings.streams else spec.timeout_s + 5,
                },
                logging_config={"enable_access_log": False},
            )
            ray.serve.run(app, name=self._name, route_prefix="/")
        except (RayActorError, TimeoutError) as error:
            self._owns_serve = starts_serve
            raise ray_serve_error(self._version, error) from error
        except RuntimeError as error:
            self._owns_serve = starts_serve
            reason = _failure_reason(self._name) or str(error).strip().splitlines()[-1]
            raise _start_error(self._version, spec, reason, error) from error
        self._owns_serve = starts_serve
        # If Ray Serve was already running, its proxy keeps the address that it was started with.
        host, port = (spec.host, spec.port) if owns_proxy() else serve_address()
        self.url = http_url(host, port)

    def wait_for_engine(self, model: str, engine: str) -> None:
        """Wait until all replicas compute new requests of `model` with the chosen `engine`, then say so."""
        deadline = time.monotonic() + _ENGINE_WITHIN_S
        while time.monotonic() < deadline and not self._stopping.wait(_ENGINE_EVERY_S):
            with contextlib.suppress(Exception):  # a replica that starts or stops is asked again
                in_use = asyncio.run(_engines_in_use(self._name))
                if in_use and all(engines[model] == engine for engines in in_use):
                    self._say(engine_report(model, engine))
                    return

    def raise_failure(self) -> None:
        """Do nothing: Ray Serve replaces whatever fails."""

    def stop(self, within_s: float) -> None:
        """Answer the requests that the replicas have accepted, for at most `serve.drain_s`, and refuse new ones with 503.

        Then delete the application, and shut Ray Serve down if it was started for it. Wait for that at most `within_s`.
        If Ray itself is stopped next, that ends whatever is left.
        """
        self._stopping.set()
        if self.url:
            _in_thread(lambda: _drain(self._name, self._spec.drain_s), self._spec.drain_s + _DRAIN_SLACK_S)
        _in_thread(lambda: _shut_down(self._name, self._owns_serve), within_s)


def _start_error(version: Version, spec: ServeSpec, reason: str, error: RuntimeError) -> RaymillError:
    """Return the error to raise for a failed start."""
    if "ModelError" in reason:
        text, _, fix = reason.split("ModelError:")[-1].partition(_FIX)
        return ModelError(
            f"{version.ref} cannot be served: {text.strip()}", fix.strip() or "restore the version, or train again"
        )
    if "address already in use" in str(error).lower():
        return ResourceError(f"{spec.host}:{spec.port} is in use", "choose another port with `serve.port` or `--port`")
    return RaymillError(f"{version.ref} could not be started: {reason}")


def ray_serve_error(version: Version, error: Exception) -> ResourceError:
    """Return the error to raise if Ray Serve's controller or proxy has ended, or does not answer, during the start."""
    lines = [line.strip() for line in str(error).splitlines()]
    reason = " ".join(line for line in lines if line and not line.startswith(_IDS)) or type(error).__name__
    return ResourceError(
        f"{version.ref} could not be started, because a process of Ray Serve ended or did not answer: "
        f"{reason[:_MAX_REASON]}",
        f"start it again when the machine is less busy or has more free memory; Ray's logs are in {ray_log_folder()}",
    )


def _check_no_other_application(name: str) -> None:
    for app in ray.serve.status().applications.keys() - {name}:
        raise ResourceError(
            f"Ray Serve on this cluster already has the application '{app}'",
            "use another Ray cluster, or put both applications into one Ray Serve config",
        )


def _in_thread(work: Callable[[], None], within_s: float) -> None:
    """Call `work` in a thread, so that Ctrl-C ends the wait for it, and wait for it at most `within_s`."""
    thread = threading.Thread(target=work, daemon=True, name=f"{WORK_THREAD}-stop")
    thread.start()
    thread.join(within_s)


def _drain(name: str, within_s: float) -> None:
    """Tell all replicas to take no more requests, and return once they have answered those that they have."""
    with contextlib.suppress(Exception):  # no replica runs, or Ray Serve has ended
        asyncio.run(_drain_replicas(name, within_s))


async def _drain_replicas(name: str, within_s: float) -> None:
    handle = ray.serve.get_app_handle(name)
    deadline = time.monotonic() + within_s
    n_quiet = 0
    while n_quiet < _QUIET_LOOKS and time.monotonic() < deadline + _DRAIN_SLACK_S:
        time_left_s = max(0.0, deadline - time.monotonic())
        active = await broadcast_answers(handle, "drain", _ASK_WITHIN_S, time_left_s)
        n_quiet = 0 if sum(active) else n_quiet + 1
        await asyncio.sleep(_DRAIN_EVERY_S)


async def _engines_in_use(name: str) -> list[dict[str, str]]:
    """Return the engines of each replica: model -> engine."""
    # With `proxy: haproxy` Ray Serve's handles work in an event loop only.
    return await broadcast_answers(ray.serve.get_app_handle(name), "engines", _ASK_WITHIN_S)


def _shut_down(name: str, shuts_serve_down: bool) -> None:
    with contextlib.suppress(Exception):
        if shuts_serve_down:
            ray.serve.shutdown()
        else:
            ray.serve.delete(name)


def _failure_reason(name: str) -> str:
    """Return the line that names the error in a replica's traceback, and the line with its fix.

    Returns "" if Ray Serve reports no error.
    """
    app: Any = None
    with contextlib.suppress(Exception):
        app = ray.serve.status().applications.get(name)
    if app is None or app.status == ApplicationStatus.RUNNING:
        return ""
    messages = [app.message, *[deployment.message for deployment in app.deployments.values()]]
    lines = [line.strip() for message in messages for line in str(message).splitlines()]
    for line, below in zip(reversed(lines), ["", *reversed(lines)], strict=False):
        if "Error" in line and ":" in line and not line.startswith(_FIX):
            return f"{line} {below}" if below.startswith(_FIX) else line
    return ""
