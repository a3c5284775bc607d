"""Start, check and stop the endpoint from a driver process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray.serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus

from cluster.errors import ModelError, RaymillError, ResourceError
from cluster.progress import WORK
from serve.app import HeldOutOf, application
from serve.haproxy import check_access, is_ours
from trainer.registry.registry import Version
from trainer.spec.run import Serve as ServeSpec

# How the second line of a `UserError` begins.
_FIX = "fix:"


class Endpoint(NamedTuple):
    """A served version."""

    url: str
    started_serve: bool
    """Whether Ray Serve was started for it, and is to be shut down with it."""


def start(
    versions: Sequence[Version],
    spec: ServeSpec,
    held_out: HeldOutOf | None,
    *,
    log_folder: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Endpoint:
    """Serve `versions` on the connected Ray; returns once every replica is ready. `held_out` and `say` as `application` has them.

    Raises `ModelError` if the replicas refuse the model (golden rows, digests), and takes the application down again;
    `ResourceError` if the address is taken, or Serve runs there already for somebody else's application.
    """
    check_access(spec)
    version = versions[0]
    app = application(versions, spec, held_out, log_folder=log_folder, say=say)
    started_serve = _get_global_client(raise_if_no_controller_running=False) is None
    if not started_serve:
        _must_have_room(version.name)
        check_access(spec.model_copy(update={"host": _address()[0]}))
    try:
        ray.serve.start(
            proxy_location="HeadOnly",
            # Behind our HAProxy, which listens where the spec says, the replicas listen on this machine alone.
            http_options={
                "host": "127.0.0.1" if is_ours() else spec.host,
                "port": spec.port,
                "request_timeout_s": spec.timeout_s + 5,
            },
            logging_config={"enable_access_log": False},
        )
        ray.serve.run(app, name=version.name, route_prefix="/")
    except RuntimeError as error:
        reason = _why_not(version.name) or str(error).strip().splitlines()[-1]
        stop(version.name, started_serve=started_serve)
        if "ModelError" in reason:
            text, _, fix = reason.split("ModelError:")[-1].partition(_FIX)
            raise ModelError(
                f"{version.ref} is not fit to be served: {text.strip()}",
                fix.strip() or "restore the version, or train again",
            ) from error
        if "address already in use" in str(error).lower():
            raise ResourceError(f"{spec.host}:{spec.port} is taken", "give another --port") from error
        raise RaymillError(f"{version.ref} could not be started: {reason}") from error
    # Where Serve ran already, its proxy keeps the address it has.
    host, port = (spec.host, spec.port) if is_ours() else _address()
    return Endpoint(f"http://{f'[{host}]' if ':' in host else host}:{port}", started_serve)


def _address() -> tuple[str, int]:
    """Return where the running Serve listens."""
    client = _get_global_client()
    assert client is not None
    return str(client.http_config.host), client.http_config.port


def _must_have_room(name: str) -> None:
    for app in ray.serve.status().applications.keys() - {name}:
        raise ResourceError(
            f"Ray Serve on this cluster already has the application '{app}'",
            "serve from a Ray of its own, or from one Serve config",
        )


def stop(name: str, *, started_serve: bool, within_s: float = 1.0) -> None:
    """Take the application down, waiting at most `within_s` where Ray is stopped next, which ends what is left."""
    stopping = threading.Thread(target=_take_down, args=[name, started_serve], daemon=True, name=f"{WORK}-stop")
    stopping.start()
    stopping.join(within_s)


def _take_down(name: str, started_serve: bool) -> None:
    with contextlib.suppress(Exception):
        if started_serve:
            ray.serve.shutdown()
        else:
            ray.serve.delete(name)


def _why_not(name: str) -> str:
    """Return the line of a replica's traceback that says what was wrong, with the fix below it, if Serve has one."""
    found: Any = None
    with contextlib.suppress(Exception):
        found = ray.serve.status().applications.get(name)
    if found is None or found.status == ApplicationStatus.RUNNING:
        return ""
    messages = [found.message, *[deployment.message for deployment in found.deployments.values()]]
    lines = [line.strip() for message in messages for line in str(message).splitlines()]
    for line, below in zip(reversed(lines), ["", *reversed(lines)], strict=False):
        if "Error" in line and ":" in line and not line.startswith(_FIX):
            return f"{line} {below}" if below.startswith(_FIX) else line
    return ""
