"""How pages show what they know about a run: its state, version, times and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cluster.text import format_seconds
from trainer.targets.metrics.summary import COUNTS

MISSING = "–"
#: Validation losses of classes and tags, and of numbers.
LOSSES = ("log_loss", "mse")
# With more runs, a table of values has a row per run instead of a column, unless there are even more values.
_MAX_COLUMNS = 6


def runs_are_rows(n_runs: int, n_values: int) -> bool:
    """Return whether a table with several values of several runs has a row per run, and not a column per run."""
    return n_runs > _MAX_COLUMNS and n_runs > n_values


def describe_state(run: Mapping[str, Any]) -> str:
    """Return a run's state for a table; an interrupted run that can be resumed says so."""
    if run["state"] == "interrupted" and run["can_resume"]:
        return "interrupted: can be resumed"
    return str(run["state"])


def describe_version(run: Mapping[str, Any]) -> str:
    """Return `name@3 (champion)` for a registered run; "" for any other."""
    if run["version"] is None:
        return ""
    aliases = f" ({', '.join(run['aliases'])})" if run["aliases"] else ""
    return f"{run['model']}@{run['version']}{aliases}"


def describe_start(run: Mapping[str, Any]) -> str:
    """Return when a run started, to the minute, in UTC; "" if it is unknown."""
    return str(run["started"] or "").replace("T", " ")[:16]


def describe_duration(run: Mapping[str, Any]) -> str:
    """Return how long a run took; "" if it is unknown."""
    return "" if run["seconds"] is None else format_seconds(run["seconds"])


def describe_metric(run: Mapping[str, Any]) -> str:
    """Return the main metric with the part it was computed on; "" if there is none yet."""
    return "" if run["value"] is None else f"{run['metric']} {run['value']:.4f} ({run['part']})"


def format_metric(name: str, value: float | None) -> str:
    """Return the value of the metric `name` with four decimals, a count as a whole number, or a dash."""
    return MISSING if value is None else f"{value:.6g}" if name in COUNTS else f"{value:.4f}"


def format_value(value: Any) -> str:
    """Return the value of a spec's key as YAML would have it on one line, or a dash."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
