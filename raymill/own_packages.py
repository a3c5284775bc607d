"""Make sure that the names `cluster`, `trainer`, `tune` and `serve` import raymill's packages in this process."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).absolute().parents[1])


def guard() -> None:
    """Install `cluster.import_guard`. Import it from the folder of raymill's packages, not from a user's file."""
    sys.path.insert(0, _ROOT)
    try:
        from cluster import import_guard
    except ImportError as error:
        file = getattr(sys.modules.get("cluster"), "__file__", "a module")
        raise ImportError(
            f"{file} was imported as 'cluster' before raymill and hides raymill's package 'cluster'; "
            "rename that file, or import raymill first"
        ) from error
    finally:
        sys.path.remove(_ROOT)
    import_guard.install()
