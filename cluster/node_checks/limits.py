"""Open files: Ray's processes need a connection to each other, and each takes a file."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.environment_checks import Check
from cluster.node_checks.answers import NodeAnswer, fine, look, name_list, where, wrong

_LEAST, _ENOUGH = 1024, 8192
_FIX = "raise it where Ray is started: `ulimit -n 65536`, LimitNOFILE= of a service, `docker run --ulimit nofile=65536`"


def read_open_files() -> int | None:
    """Return how many files a process of Ray on this node may have open; None if there is no limit."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def check_open_files(nodes: Sequence[NodeAnswer]) -> list[Check]:
    """Check the limit of open files of Ray's processes."""
    limits = [node.facts["open_files"] for node in nodes if node.facts["open_files"] is not None]
    text = f"at least {min(limits):,} on each node" if limits else "no limit"
    for line, least in ((wrong, _LEAST), (look, _ENOUGH)):
        low = where(nodes, lambda node, least=least: (node.facts["open_files"] or least) < least)  # type: ignore[misc]
        if low:
            return [line("open files", f"fewer than {least:,} on {name_list(low)}", _FIX)]
    return [fine("open files", text)]
