"""What Ray Serve calls in each process that listens for HTTP, under the path `raymill.ray_ingress.middlewares`.

Ray Serve takes the path from an environment variable when it starts: see `serve.ingress_settings`. Importing `raymill`
first keeps a user's own `serve.py` from hiding the package `serve`.
"""

from __future__ import annotations

from typing import Any


def middlewares() -> list[Any]:
    """Set up uvicorn in this process, and return the middlewares around its application."""
    from starlette.middleware import Middleware

    from serve.asgi.ray_errors import RayErrors
    from serve.asgi.uvicorn_patch import is_patched, patch_uvicorn
    from serve.ingress_settings import read_settings

    settings = read_settings()
    if not is_patched():  # a replica has done it, with its metrics
        patch_uvicorn(settings.client_timeout_s)
    return [Middleware(RayErrors, origins=settings.cors_origins)]
