"""GPUs: their types, memory and drivers, and whether Ray counts all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from cluster.environment_checks import Check
from cluster.node_checks.answers import NodeAnswer, describe_groups, fine, look, nodes_by_value, where, wrong

_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
_WITHIN_S = 10


def read_gpus() -> list[dict[str, str]]:
    """Return type, driver and memory of each NVIDIA GPU that the driver shows here."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, encoding="utf-8", timeout=_WITHIN_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> list[dict[str, str]]:
    """Return the GPUs in the lines that nvidia-smi prints for `_QUERY`."""
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines()]
    return [dict(zip(("type", "driver", "memory"), row, strict=True)) for row in rows if len(row) == 3]


def check_gpus(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check that one driver runs on all nodes with GPUs, and that Ray has as many GPUs as the driver shows."""
    with_gpus = [node for node in nodes if node.facts["gpus"] or node.resources.get("GPU")]
    if not with_gpus:
        return [fine("GPUs", "none")]
    checks = [fine("GPUs", describe_groups(nodes_by_value(with_gpus, _describe)))]
    drivers = nodes_by_value(with_gpus, lambda node: _value(node, "driver"))
    if len(drivers) > 1:
        checks.append(look("GPU drivers", describe_groups(drivers), "install the same driver on all nodes"))
    unseen = where(nodes, lambda node: node.resources.get("GPU", 0) > len(node.facts["gpus"]))
    hidden = where(nodes, lambda node: node.resources.get("GPU", 0) < len(node.facts["gpus"]))
    if unseen:
        text = f"Ray has more GPUs than the driver shows on {', '.join(unseen)}"
        checks.append(wrong("GPUs in Ray", text, "start the node without `--num-gpus`, and look at `nvidia-smi` there"))
    if hidden:
        text = f"Ray uses fewer GPUs than there are on {', '.join(hidden)}"
        checks.append(look("GPUs in Ray", text, "look at CUDA_VISIBLE_DEVICES and `--num-gpus` where Ray is started"))
    return checks


def _describe(node: NodeAnswer) -> str:
    return (
        f"{len(node.facts['gpus'])} x {_value(node, 'type')}, {_value(node, 'memory')}, driver {_value(node, 'driver')}"
    )


def _value(node: NodeAnswer, field: str) -> str:
    """Return a value of the node's GPUs, or all of them if they differ."""
    return " and ".join(sorted({gpu[field] for gpu in node.facts["gpus"]})) or "not shown"
