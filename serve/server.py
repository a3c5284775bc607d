"""Start, check and stop the endpoint from a driver process."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import ray.serve
from ray.serve.schema import ApplicationStatus

from cluster.connect import port_is_free
from cluster.errors import ModelError, RaymillError, ResourceError
from serve.app import application
from trainer.registry import Version
from trainer.spec import Serve as ServeSpec


def check_port(host: str, port: int) -> None:
    """Raise `ResourceError` if nothing could listen there; asked before anything slow starts."""
    if not port_is_free(host, port):
        raise ResourceError(
            f"{host}:{port} cannot be listened on: another program has it, or the address is not this machine's",
            f"give another port, as --port {port + 1 if port < 65535 else 8000}",
        )


def start(version: Version, spec: ServeSpec) -> str:
    """Serve `version` on the connected Ray and return the URL once every replica is ready.

    Raises `ModelError` if the replicas refuse the model (golden rows, digests), and takes the application down again.
    """
    ray.serve.start(
        proxy_location="HeadOnly",
        http_options={"host": spec.host, "port": spec.port, "request_timeout_s": spec.timeout_s + 5},
        logging_config={"enable_access_log": False},
    )
    app = application(version, spec)
    try:
        ray.serve.run(app, name=version.name, route_prefix="/")
    except RuntimeError as error:
        reason = _why_not(version.name) or str(error).splitlines()[0]
        with contextlib.suppress(Exception):
            ray.serve.delete(version.name)
        if "ModelError" in reason:
            raise ModelError(
                f"{version.ref} is not fit to be served: {reason.split('ModelError:')[-1].strip()}", "restore the version, or train again"
            ) from error
        raise RaymillError(f"{version.ref} could not be started: {reason}") from error
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    return f"http://{host}:{spec.port}"


def stop(name: str, within_s: float = 1.5) -> None:
    """Take the application down, waiting at most `within_s`: Ray's own shutdown ends what is left."""
    stopping = threading.Thread(target=_delete, args=[name], daemon=True, name="raymill-serve-stop")
    stopping.start()
    stopping.join(within_s)


def _delete(name: str) -> None:
    with contextlib.suppress(Exception):
        ray.serve.delete(name)


def _why_not(name: str) -> str:
    """Return the line of a replica's traceback that says what was wrong, if Serve has one."""
    found: Any = None
    with contextlib.suppress(Exception):
        found = ray.serve.status().applications.get(name)
    if found is None or found.status == ApplicationStatus.RUNNING:
        return ""
    messages = [found.message, *[deployment.message for deployment in found.deployments.values()]]
    lines = [line.strip() for message in messages for line in str(message).splitlines()]
    return next((line for line in reversed(lines) if "Error" in line and ":" in line), "")
