"""The config of an endpoint for `serve deploy`, in Ray Serve's own format."""

from __future__ import annotations

from typing import Any

from cluster.paths import expand_home
from trainer.spec.serve import ServeSpec

# Keys of `serve:` that are not passed on: Ray Serve has its own options for them, or a running cluster cannot use them.
_EXCLUDED = {"host", "port", "proxy", "insecure", "retries"}


def build_deploy_config(model: str, storage: str, spec: ServeSpec, *, streams: bool = False) -> dict[str, Any]:
    """Return the config of a model's endpoint, which `serve deploy` reads as YAML.

    `streams` says whether answers may be streams, of any length of time.
    """
    changed = spec.model_dump(mode="json", exclude_unset=True)
    serve = {key: value for key, value in changed.items() if key not in _EXCLUDED}
    if spec.keys:
        serve["keys"] = str(expand_home(spec.keys).absolute())  # the cluster reads it when it builds the application
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": spec.host,
            "port": spec.port,
            "request_timeout_s": None if streams else spec.timeout_s + 5,
        },
        "applications": [
            {
                "name": model.partition("@")[0],
                "route_prefix": "/",
                "import_path": "raymill.deploy:build",
                "args": {"model": model, "storage": storage, "serve": serve},
            }
        ],
    }
