"""Look at a cluster from inside, in a job: which paths all nodes see, whether storage is one folder, what is installed.

`cluster.jobs.probe` sends this package with the job, so the nodes need nothing of raymill's for it.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.node_checks.ask import NodeCallers

#: The file of the question, in the job's folder; the line of the answer, in its log.
REQUEST_FILE = "request.json"
ANSWER = "raymill-nodes"

_WITHIN_S = 60.0


def read_facts(paths: Sequence[str], packages: Sequence[str], storage: str) -> dict[str, Any]:
    """Return what this node sees.

    Keys: `versions`; `paths`: path -> size of the file, -1 for a folder or a pattern that matches, None if there is
    nothing; `packages`: those that are not installed; `storage`: the nearest folder of it that exists.
    """
    import importlib.util

    from cluster.node_checks.storage import existing_folder
    from cluster.node_checks.versions import read_versions

    def size_of(path: str) -> int | None:
        if Path(path).is_file():
            return Path(path).stat().st_size
        return -1 if Path(path).exists() or next(glob.iglob(path, recursive=True), None) else None

    return {
        "versions": read_versions(),
        "paths": {path: size_of(path) for path in paths},
        "packages": [name for name in packages if importlib.util.find_spec(name) is None],
        "storage": existing_folder(storage),
    }


def make_storage(storage: str) -> bool:
    """Make the storage folder if the folder above it exists. Return whether it was made here."""
    if Path(storage).is_dir() or not Path(storage).parent.is_dir():
        return False
    os.makedirs(storage, exist_ok=True)  # noqa: PTH103  this function travels by value
    return True


def sees_folder(folder: str, within_s: float = 10.0) -> bool:
    """Return whether a folder that another node has made is here within some seconds."""
    import time

    deadline = time.monotonic() + within_s
    while True:
        os.listdir(Path(folder).parent)  # noqa: PTH208  a network file system then asks its server again
        if Path(folder).is_dir():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def report_nodes(request: dict[str, Any], within_s: float = _WITHIN_S) -> dict[str, Any]:
    """Return the answers of all nodes of the connected Ray.

    Keys: `nodes`: name -> what `read_facts` returns; `silent`: name -> why a node does not answer; `storage`: sentences
    on what is wrong with the storage folder.
    """
    from cluster.node_checks.ask import callers_on, cluster_nodes

    alive, _ = cluster_nodes()
    hosts = [node.host for node in alive]
    names = {node.id: node.host if hosts.count(node.host) == 1 else f"{node.host} ({node.address})" for node in alive}
    storage = request["storage"]
    with callers_on(alive, within_s) as callers:
        arguments = (request["paths"], request["packages"], storage)
        facts = callers.ask_each(read_facts, dict.fromkeys(names, arguments))
        seen = {names[node]: facts.values[node]["storage"] for node in facts.values}
        problems = check_parents(storage, seen) or _check_storage(callers, storage, list(facts.values), names)
    return {
        "nodes": {names[node]: values for node, values in facts.values.items()},
        "silent": {names[node]: reason for node, reason in facts.problems.items()},
        "storage": problems,
    }


def check_parents(storage: str, existing: Mapping[str, str]) -> list[str]:
    """Return what is wrong if neither the storage folder nor the one above it exists on a node.

    `existing` has, by name of a node, the nearest folder that exists there. A folder further up is no mount: raymill
    would write to the node's own disk.
    """
    absent = [name for name, folder in existing.items() if folder not in (storage, str(Path(storage).parent))]
    return [f"neither it nor the folder above it exists on {_some(absent)}"] if absent else []


def _check_storage(callers: NodeCallers, storage: str, nodes: list[str], names: Mapping[str, str]) -> list[str]:
    """Let each of `nodes` write a file into the storage folder and read those of the others. Return what is wrong.

    The folder is made if it does not exist.
    """
    new = callers.ask_each(make_storage, dict.fromkeys(nodes[:1], (storage,)))
    if new.problems:
        return [f"{names[node]} cannot make it: {reason}" for node, reason in new.problems.items()]
    seen = callers.ask_each(sees_folder, dict.fromkeys(nodes, (storage,))).values
    blind = [names[node] for node in nodes if not seen.get(node)]
    problems = [_not_one(blind)] if blind else _write_marks(callers, storage, nodes, names)
    if problems and any(new.values.values()):
        callers.ask_each(os.rmdir, {nodes[0]: (storage,)})
    return problems


def _write_marks(callers: NodeCallers, storage: str, nodes: list[str], names: Mapping[str, str]) -> list[str]:
    from cluster.node_checks import storage as marks

    mark = {node: f".raymill-{uuid.uuid4().hex[:12]}" for node in nodes}
    written = callers.ask_each(marks.write_mark, {node: (storage, mark[node]) for node in nodes})
    problems = [f"{names[node]} cannot write it: {reason}" for node, reason in written.problems.items()]
    expected = [mark[node] for node in written.values]
    unseen = callers.ask_each(marks.missing_marks, dict.fromkeys(written.values, (storage, expected)))
    blind = [names[node] for node, missing in unseen.values.items() if missing]
    if blind:
        problems.append(_not_one(blind))
    callers.ask_each(marks.remove_mark, {node: (storage, mark[node]) for node in written.values})
    return problems


def _not_one(blind: Sequence[str]) -> str:
    return f"it is not one folder: {_some(blind)} does not see what another node writes there"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more nodes" if len(names) > 4 else "")


def main() -> None:
    """Answer the question in `REQUEST_FILE` with one line on stdout."""
    import logging

    import ray

    request = json.loads(Path(REQUEST_FILE).read_bytes())
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    sys.stdout.write(f"{ANSWER} {json.dumps(report_nodes(request))}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
