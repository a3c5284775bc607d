"""Make `cluster`, `trainer`, `tune` and `serve` mean raymill's packages in this process."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).absolute().parents[1])


def guard() -> None:
    """Install `cluster.import_guard`; the guard itself is imported from the folder beside this package."""
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
