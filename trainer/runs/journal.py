"""TODO docstring."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.files import append_line

#: What a command did; there only once a run is finished.
RESULT = "result.json"


#: A line for each epoch.
HISTORY = "history.jsonl"


#: A line for every few steps.
METRICS = "metrics.jsonl"


#: What whoever started the run should see, as a checkpoint that could not be written.
NOTICES = "notices.jsonl"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs written to `folder` so far."""
    return read_lines(folder / HISTORY)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file with one a line; empty without it, and a line that is cut short ends them."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def tracked(line: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """Return step and figures of a line by step, under the names that trackers get them by."""
    return int(line["step"]), {f"train/{name}": value for name, value in line.items() if name != "step"}


def figures_so_far(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Return what was tracked of the steps of a run, from its own lines."""
    return [tracked(line) for line in read_lines(folder / METRICS)]


def notice(folder: Path, text: str) -> None:
    """Write a sentence that whoever started the run should see, as that a checkpoint could not be written."""
    line = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "text": text}
    append_line(folder / NOTICES, json.dumps(line, ensure_ascii=False))
