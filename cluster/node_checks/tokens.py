"""Ray's token authentication: whether it is on, and whether each node says so itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.environment_checks import Check
from cluster.node_checks.answers import NodeAnswer, describe_groups, fine, look, name_list, nodes_by_value, where, wrong
from cluster.node_checks.raylet import raylet_environment

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_DOCS = "docs/how-to/secure-a-cluster.md"
_EXPLICIT = (
    f"set {_MODE}=token and {_PATH} (or {_MODE}=disabled) on every node before `ray start`: the head turns the mode on "
    "where it finds a token in ~/.ray, other nodes do not"
)


def read_token_mode() -> dict[str, str | bool]:
    """Return the mode of token authentication here, and where the token is from: never the token."""
    variables = raylet_environment()
    source = _TOKEN if variables.get(_TOKEN) else _PATH if variables.get(_PATH) else "~/.ray/auth_token"
    return {
        "mode": variables.get(_MODE, "").lower(),
        "source": source,
        "home_token": (Path(variables.get("HOME", "/")) / ".ray" / "auth_token").is_file(),
    }


def check_token_modes(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check that the mode is the same on all nodes, set on each, and on."""
    modes = nodes_by_value(nodes, lambda node: node.facts["token"]["mode"] or "not set")
    if len(modes) > 1:
        return [wrong("token", f"{_MODE} differs: {describe_groups(modes)}", _EXPLICIT)]
    (mode,) = modes
    if mode != "token":
        text = f"{_MODE} is {mode} on every node: whoever reaches the head runs code there"
        return [look("token", text, f"turn it on: {_DOCS}, or let only trusted machines reach the head")]
    implicit = where(nodes, lambda node: node.facts["token"]["source"] == "~/.ray/auth_token")
    if implicit:
        text = f"on; found in ~/.ray/auth_token, not named, on {name_list(implicit)}"
        return [look("token", text, _EXPLICIT)]
    return [fine("token", f"{_MODE}=token on every node")]
