"""What the nodes of a cluster answered, and the lines of the table that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cluster.environment_checks import Check
from cluster.text import list_some

# More names of nodes than this are counted, not listed.
_MAX_NAMES = 4


class NodeAnswer(NamedTuple):
    """One node of a cluster, and what was read on it."""

    name: str
    """Its host name, or its address if another node has the same host name."""
    address: str
    is_head: bool
    resources: dict[str, float]
    """What Ray has for tasks there: CPU, GPU, memory, object_store_memory."""
    facts: dict[str, Any]
    """What `read_node` returned there."""


def wrong(name: str, text: str, fix: str) -> Check:
    """Return a line about what makes runs or requests fail."""
    return Check(name, text, ok=False, needed=True, fix=fix)


def look(name: str, text: str, fix: str) -> Check:
    """Return a line about what makes work slower or less safe."""
    return Check(name, text, ok=False, needed=False, fix=fix)


def fine(name: str, text: str, advice: str = "") -> Check:
    """Return a line about what is as it should be. `advice` says what to know about it."""
    return Check(name, text, ok=True, needed=False, fix=advice)


def name_list(names: Sequence[str]) -> str:
    """Return names of nodes in a few words: `a, b` or `a, b, c, d and 12 more`."""
    return list_some(names, _MAX_NAMES)


def nodes_by_value(nodes: Sequence[NodeAnswer], value_of: Callable[[NodeAnswer], Any]) -> dict[Any, list[str]]:
    """Return the names of the nodes by a value of each, the value that most nodes have first."""
    groups: dict[Any, list[str]] = {}
    for node in nodes:
        groups.setdefault(value_of(node), []).append(node.name)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def describe_groups(groups: dict[Any, list[str]]) -> str:
    """Return in words which nodes have which value: `2.60.0 on a, b; 2.59.0 on c`."""
    return "; ".join(f"{value} on {name_list(names)}" for value, names in groups.items())


def where(nodes: Sequence[NodeAnswer], is_so: Callable[[NodeAnswer], bool]) -> list[str]:
    """Return the names of the nodes for which `is_so` holds."""
    return [node.name for node in nodes if is_so(node)]
