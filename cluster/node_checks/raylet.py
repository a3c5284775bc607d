"""The environment of the Ray node that a worker belongs to. Runs on the nodes of a cluster."""

from __future__ import annotations

import os


def raylet_environment() -> dict[str, str]:
    """Return the variables with which the node of this worker was started.

    A worker's own environment has the variables of its job too. Where the node's cannot be read, the worker's is returned.
    """
    import psutil

    try:
        variables: dict[str, str] = psutil.Process(os.getppid()).environ()
    except (psutil.Error, OSError):
        variables = {}
    # A raylet always has a path.
    return variables if "PATH" in variables else dict(os.environ)
