"""The endpoint's application for `serve deploy` and `serve run`, under the import path `raymill.deploy:build`.

It is the same as `serve.app:build`. But importing `raymill` first keeps a user's own `serve.py` from hiding the package
`serve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve import Application


def build(args: dict[str, Any]) -> Application:
    """Return the application for `args`, whose keys are the fields of `serve.app.BuildArguments`."""
    from serve.app import build as build_application

    return build_application(args)
