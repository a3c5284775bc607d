"""The import path of an endpoint's application for `serve deploy` and `serve run`: `raymill.deploy:build`.

The same as `serve.app:build`, except that importing `raymill` first keeps a user's own `serve.py` from hiding it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve import Application


def build(args: dict[str, Any]) -> Application:
    """Return the application for `args`, the fields of `serve.app.BuildArguments`."""
    from serve.app import build as build_application

    return build_application(args)
