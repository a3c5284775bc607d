"""The head: whether the cluster outlives it, and how soon it notices that a node is silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.environment_checks import Check
from cluster.node_checks.answers import NodeAnswer, fine, look, nodes_by_value
from cluster.node_checks.raylet import raylet_environment

_REDIS, _STORAGE, _STORAGE_PATH = "RAY_REDIS_ADDRESS", "RAY_gcs_storage", "RAY_gcs_storage_path"
_RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
# Ray's own values, in milliseconds, and the number of checks in a row that must fail.
_PERIOD, _TIMEOUT, _FAILURES = "health_check_period_ms", "health_check_timeout_ms", "health_check_failure_threshold"
_DEFAULTS = {_PERIOD: 3000.0, _TIMEOUT: 10000.0, _FAILURES: 5.0, _RECONNECT.removeprefix("RAY_"): 60.0}


def read_head_variables() -> dict[str, Any]:
    """Return what decides how long a cluster lives without its head, and a node in silence."""
    variables = raylet_environment()
    if variables.get(_STORAGE) == "rocksdb":
        state = f"rocksdb in {variables.get(_STORAGE_PATH, '')}"
    else:
        state = "redis" if variables.get(_REDIS) else ""
    numbers = {name: _number(variables.get(f"RAY_{name}"), value) for name, value in _DEFAULTS.items()}
    return {"state": state, **numbers}


def silence_s(facts: dict[str, Any]) -> float:
    """Return the seconds after which the head calls a silent node dead."""
    return float(facts[_FAILURES] * (facts[_PERIOD] + facts[_TIMEOUT]) / 1000)


def check_head(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check whether the head's state is kept outside of it, and say how soon a silent node is noticed."""
    head = next((node for node in nodes if node.is_head), None)
    if head is None or len(nodes) == 1:
        return []
    seconds = silence_s(head.facts["head"])
    checks = [
        fine(
            "silent nodes",
            f"called dead after {seconds:.0f} s",
            f"on the head, RAY_{_PERIOD}, RAY_{_TIMEOUT} and RAY_{_FAILURES} change it",
        )
    ]
    waits = nodes_by_value(nodes, lambda node: node.facts["head"][_RECONNECT.removeprefix("RAY_")])
    if not head.facts["head"]["state"]:
        fix = (
            f"for endpoints that outlive the head, set {_STORAGE}=rocksdb and {_STORAGE_PATH} to a folder that the next "
            f"head sees, or {_REDIS}, before `ray start --head`"
        )
        checks.append(look("head", "its state is in its memory only: when it ends, all nodes end", fix))
    else:
        text = f"state in {head.facts['head']['state']}; nodes wait {min(waits):.0f} s for a new head"
        checks.append(fine("head", text, f"{_RECONNECT} on every node changes how long they wait"))
    return checks


def _number(text: str | None, default: float) -> float:
    try:
        return float(text or default)
    except ValueError:
        return default
