"""The config of an endpoint for `serve deploy`: Ray Serve's own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.spec.run import Serve as ServeSpec

# Keys that Ray Serve itself is told, and those that mean nothing to a cluster that is there already.
_RAYS = {"host", "port", "proxy", "insecure", "retries"}


def config(model: str, storage: str, spec: ServeSpec) -> dict[str, Any]:
    """Return the config of a model's endpoint, as `serve deploy` reads it from YAML."""
    given = spec.model_dump(mode="json", exclude_unset=True)
    serve = {key: value for key, value in given.items() if key not in _RAYS}
    if spec.keys:
        serve["keys"] = str(Path(spec.keys).expanduser().absolute())  # read where the application is built
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": spec.host, "port": spec.port, "request_timeout_s": spec.timeout_s + 5},
        "applications": [
            {
                "name": model.partition("@")[0],
                "route_prefix": "/",
                "import_path": "raymill.deploy:build",
                "args": {"model": model, "storage": storage, "serve": serve},
            }
        ],
    }
