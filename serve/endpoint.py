"""Start and stop an endpoint from a driver process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray.serve
from ray.exceptions import RayActorError
from ray.serve.schema import ApplicationStatus

from cluster.errors import ModelError, RaymillError, ResourceError
from cluster.progress import WORK_THREAD
from cluster.ray_internals import serve_address, serve_is_running
from serve.app import HeldOutLoader, build_application
from serve.haproxy import check_access, owns_proxy
from trainer.registry.registry import Version
from trainer.spec.serve import ServeSpec

# The start of the second line of a `UserError`.
_FIX = "fix:"
# Lines in the message of a dead actor that only identify the process.
_IDS = ("actor_id:", "pid:", "namespace:", "ip:")
_MAX_REASON = 600


class Endpoint(NamedTuple):
    """A running endpoint."""

    url: str
    started_serve: bool
    """Whether Ray Serve was started for this endpoint, and so must be shut down with it."""


def start_endpoint(
    versions: Sequence[Version],
    spec: ServeSpec,
    held_out: HeldOutLoader | None,
    *,
    log_folder: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Endpoint:
    """Serve `versions` on the connected Ray; return when all replicas are ready. See `build_application` for `held_out`
    and `say`.

    Raises `ModelError`, after deleting the application, if a replica rejects a model because of its golden rows or
    digests. Raises `ResourceError` if the address is taken, if Ray Serve already runs another application, or if one of
    Ray Serve's own processes ends or does not answer while it starts.
    """
    check_access(spec)
    version = versions[0]
    app = build_application(versions, spec, held_out, log_folder=log_folder, say=say)
    started_serve = not serve_is_running()
    if not started_serve:
        _check_no_other_application(version.name)
        check_access(spec.model_copy(update={"host": serve_address().host}))
    try:
        ray.serve.start(
            proxy_location="HeadOnly",
            # Our HAProxy listens on the spec's address; the replicas behind it listen on loopback only.
            http_options={
                "host": "127.0.0.1" if owns_proxy() else spec.host,
                "port": spec.port,
                "request_timeout_s": spec.timeout_s + 5,
            },
            logging_config={"enable_access_log": False},
        )
        ray.serve.run(app, name=version.name, route_prefix="/")
    except (RayActorError, TimeoutError) as error:
        stop_endpoint(version.name, started_serve=started_serve)
        raise ray_serve_error(version, error) from error
    except RuntimeError as error:
        reason = _failure_reason(version.name) or str(error).strip().splitlines()[-1]
        stop_endpoint(version.name, started_serve=started_serve)
        raise _start_error(version, spec, reason, error) from error
    # If Ray Serve was already running, its proxy keeps the address that it was started with.
    host, port = (spec.host, spec.port) if owns_proxy() else serve_address()
    return Endpoint(f"http://{f'[{host}]' if ':' in host else host}:{port}", started_serve)


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
        "start it again when the machine is less busy or has more free memory; Ray's logs are in /tmp/ray",
    )


def _check_no_other_application(name: str) -> None:
    for app in ray.serve.status().applications.keys() - {name}:
        raise ResourceError(
            f"Ray Serve on this cluster already has the application '{app}'",
            "use another Ray cluster, or put both applications into one Ray Serve config",
        )


def stop_endpoint(name: str, *, started_serve: bool, within_s: float = 1.0) -> None:
    """Delete the application, and shut Ray Serve down if `started_serve`. Wait for it at most `within_s`.

    If Ray itself is stopped next, that ends whatever is left.
    """
    thread = threading.Thread(target=_shut_down, args=[name, started_serve], daemon=True, name=f"{WORK_THREAD}-stop")
    thread.start()
    thread.join(within_s)


def _shut_down(name: str, started_serve: bool) -> None:
    with contextlib.suppress(Exception):
        if started_serve:
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
