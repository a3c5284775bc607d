"""Settings for Ray Serve's processes that listen for HTTP: proxies and replicas. They travel as environment variables.

Ray passes the environment of the process that starts it on to all its processes.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from trainer.spec.serve import ServeSpec

# Ray Serve's variable for a function that returns middlewares, and ours for what that function needs.
_CALLBACK, _SETTINGS = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "RAYMILL_SERVE_INGRESS"


class IngressSettings(NamedTuple):
    """The keys of `serve:` that matter before a request reaches a replica's application."""

    client_timeout_s: float = 30.0
    cors_origins: tuple[str, ...] = ()


def ingress_variables(spec: ServeSpec) -> dict[str, str]:
    """Return the environment variables for a Ray that is started to serve `spec`."""
    settings = IngressSettings(spec.client_timeout_s, spec.cors_origins)
    return {_CALLBACK: "raymill.ray_ingress.middlewares", _SETTINGS: json.dumps(settings._asdict())}


def read_settings() -> IngressSettings:
    """Return the settings of this process, or the defaults in a Ray that raymill did not start."""
    text = os.environ.get(_SETTINGS)
    if not text:
        return IngressSettings()
    values = json.loads(text)
    return IngressSettings(float(values["client_timeout_s"]), tuple(values["cors_origins"]))
