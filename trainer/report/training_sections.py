"""The sections of a report about how a training went: by step, how fast, on what, and what went wrong on the way."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from trainer.charts import style
from trainer.charts.section import Chart, Column, Section
from trainer.runs.environment import HARDWARE
from trainer.runs.journal import METRICS, NOTICES, read_lines

# More points than that are drawn as the mean of their neighbours.
_MOST_POINTS = 600


def sections(folder: Path) -> list[Section]:
    """Return what the lines by step in a run's folder say; nothing where there are none, as for estimators."""
    lines = read_lines(folder / METRICS)
    if len(lines) < 2:
        return []
    found = [
        Section(
            "Step by step",
            charts=[Chart(_charts(lines), "Each point is the mean of some steps. The dark line follows their trend.")],
            columns=[Column("what"), Column("figure", number=True)],
            rows=_facts(folder, lines),
        )
    ]
    notices = read_lines(folder / NOTICES)
    if notices:
        rows = [[notice["at"].replace("T", " ").rstrip("Z"), notice["text"]] for notice in notices]
        found.append(Section("On the way", columns=[Column("time, UTC"), Column("what happened")], rows=rows))
    return found


def _charts(lines: list[dict[str, Any]]) -> str:
    figure = style.new_figure(8, 4.4)
    steps = np.array([line["step"] for line in lines], float)
    shown = {
        "Loss": "loss",
        "Learning rate": "learning_rate",
        "Norm of the gradient": "grad_norm",
        "Rows a second": "rows_per_s",
    }
    for axes, (title, name) in zip(figure.subplots(2, 2).ravel(), shown.items(), strict=True):
        values = np.array([line[name] for line in lines], float)
        at, mean = _fewer(steps, values)
        if name == "learning_rate":
            axes.plot(at, mean, color=style.BLUE, linewidth=1.4)
        else:
            axes.plot(at, mean, color=style.BLUE, linewidth=0.7, alpha=0.45)
            axes.plot(at, _trend(mean), color=style.BLUE, linewidth=1.6)
        axes.set(title=title, ylim=(0, None))
        style.plain_axes(axes)
    for axes in figure.axes[2:]:
        axes.set(xlabel="step")
    return style.as_svg(figure)


def _fewer(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(steps) <= _MOST_POINTS:
        return steps, values
    groups = np.array_split(np.arange(len(steps)), _MOST_POINTS)
    return np.array([steps[at].mean() for at in groups]), np.array([values[at].mean() for at in groups])


def _trend(values: np.ndarray) -> np.ndarray:
    """Return an exponential mean over about a fortieth of the points, without its bias to the first."""
    share = 1.0 - 1.0 / max(2.0, len(values) / 40)
    mean, weight, found = 0.0, 0.0, []
    for value in values:
        mean, weight = share * mean + (1 - share) * value, share * weight + 1 - share
        found.append(mean / weight)
    return np.array(found)


def _facts(folder: Path, lines: list[dict[str, Any]]) -> list[list[Any]]:
    try:
        hardware = json.loads((folder / HARDWARE).read_bytes())
    except (OSError, ValueError):
        hardware = {}
    workers = sorted({line["workers"] for line in lines})
    where = hardware.get("gpu") or f"{hardware.get('processor', '')}, {hardware.get('threads', '?')} threads"
    rows = [
        ["steps", f"{lines[-1]['step']:,}"],
        ["rows a second (median)", f"{_median(lines, 'rows_per_s'):,.0f}"],
        ["seconds a step (median)", f"{_median(lines, 'step_time_s'):.4f}"],
        ["memory of the first worker (most)", f"{max(line['memory_bytes'] for line in lines) / 2**30:.2f} GiB"],
        ["workers", " to ".join(map(str, dict.fromkeys([workers[0], workers[-1]])))],
        ["each on", where],
        ["multiplied in", hardware.get("precision") or ""],
    ]
    if "tokens_per_s" in lines[-1]:
        rows.insert(2, ["tokens a second (median)", f"{_median(lines, 'tokens_per_s'):,.0f}"])
    return rows


def _median(lines: list[dict[str, Any]], name: str) -> float:
    return statistics.median(line[name] for line in lines if name in line)
