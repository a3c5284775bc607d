"""All facts that are read on a node at once."""

from __future__ import annotations

from typing import Any

from cluster.node_checks.cores import read_cores
from cluster.node_checks.gpus import read_gpus
from cluster.node_checks.head import read_head_variables
from cluster.node_checks.limits import read_open_files
from cluster.node_checks.memory import read_memory
from cluster.node_checks.names import read_names
from cluster.node_checks.serve_variables import read_serve_variables
from cluster.node_checks.tokens import read_token_mode
from cluster.node_checks.versions import read_versions


def read_node() -> dict[str, Any]:
    """Return what the checks need to know about this node, in types of JSON."""
    return {
        "versions": read_versions(),
        "gpus": read_gpus(),
        "cores": read_cores(),
        "memory": read_memory(),
        "open_files": read_open_files(),
        "names": read_names(),
        "serve": read_serve_variables(),
        "token": read_token_mode(),
        "head": read_head_variables(),
    }
