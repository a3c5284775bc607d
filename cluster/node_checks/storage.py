"""Storage: one folder that all nodes see. Each node writes a file there and reads those of the others."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.environment_checks import Check
from cluster.node_checks.answers import fine, name_list, wrong

# A network file system may show a new file of another node a little later.
VISIBLE_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.1
_FIX = "mount the same folder at the same path on all nodes, and pass it with `--storage`"


def existing_folder(folder: str) -> str:
    """Return the folder, or the nearest one above it that exists on this node."""
    path = Path(folder)
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return str(path)


def write_mark(folder: str, name: str) -> None:
    """Write a file with its own name as content, to the disk. Raises `OSError` if the folder cannot be written."""
    with (Path(folder) / name).open("x", encoding="utf-8") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())


def missing_marks(folder: str, names: Sequence[str], within_s: float = VISIBLE_WITHIN_S) -> list[str]:
    """Return those of the files that this node does not see, or sees with another content, for `within_s`."""
    deadline = time.monotonic() + within_s
    missing = list(names)
    while True:
        missing = [name for name in missing if not _is_whole(Path(folder) / name)]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(_LOOK_EVERY_S)


def remove_mark(folder: str, name: str) -> None:
    """Remove the file that this node has written."""
    with contextlib.suppress(OSError):
        (Path(folder) / name).unlink()


def _is_whole(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text(encoding="utf-8") == path.name
    return False


def check_folders(folder: str, existing: Mapping[str, str]) -> list[Check]:
    """Check that the same part of the path exists on all nodes. `existing` has `existing_folder` by name of the node."""
    longest = max(existing.values(), key=len, default=folder)
    absent = [name for name, path in existing.items() if path != longest]
    return [wrong("storage", f"{longest} does not exist on {name_list(absent)}", _FIX)] if absent else []


def check_marks(folder: str, failures: Mapping[str, str], unseen: Mapping[str, Sequence[str]]) -> list[Check]:
    """Check what the nodes wrote and read. `failures` has the reason by name of a node that could not write.

    `unseen` has, by name of a node, the nodes whose files it does not see.
    """
    checks = [
        wrong("storage", f"{folder} on {name}: {reason}", "let every node write the storage folder")
        for name, reason in failures.items()
    ]
    blind = {name: others for name, others in unseen.items() if others}
    if blind:
        pairs = "; ".join(f"{name} does not see what {name_list(list(others))} wrote" for name, others in blind.items())
        checks.append(wrong("storage", f"{folder} is not one folder for all nodes: {pairs}", _FIX))
    if not checks:
        n_nodes = len(unseen)
        checks.append(fine("storage", f"{folder}: each of {n_nodes} nodes wrote a file and read those of all others"))
    return checks
