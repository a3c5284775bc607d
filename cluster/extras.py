"""Packages that only some uses of raymill need, its extras."""

from __future__ import annotations

import importlib
from typing import Any

from cluster.errors import ModelError


def import_extra(module: str, extra: str, what: str) -> Any:
    """Return the imported `module`. Raises `ModelError` naming the extra that installs it; `what` is what needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(
            f"{what} needs the package {module.partition('.')[0]}, which cannot be imported: {error}",
            f"pip install 'raymill[{extra}]'",
        ) from error
