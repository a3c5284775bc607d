"""The section of a report about answers that were sampled in training: rewards and lengths by step, and some answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.charts.section import ReportChart, ReportSection, TableColumn
from trainer.charts.style import BLUE, as_svg, new_figure, style_axes
from trainer.report.training_charts import thin_out, trend
from trainer.rollouts.store import ROLLOUTS_FILE
from trainer.runs.journal import read_json_lines

_PANELS = {"Mean reward": "reward", "Mean tokens of an answer": "answer_tokens"}
_SHOWN, _MAX_CHARS = 4, 300


def rollout_sections(folder: Path, lines: Sequence[dict[str, Any]]) -> list[ReportSection]:
    """Return the section of a run's folder; empty if nothing was sampled. `lines` are those of metrics.jsonl."""
    lines = [line for line in lines if all(name in line for name in _PANELS.values())]
    if len(lines) < 2:
        return []
    caption = (
        "The dark line is the moving average. Below, the best and the worst answers of the first and the last step."
    )
    return [
        ReportSection(
            "Answers sampled in training",
            charts=[ReportChart(_draw_panels(lines), caption)],
            columns=[TableColumn("step"), TableColumn("reward", number=True), TableColumn("answer")],
            rows=_describe_answers(folder / ROLLOUTS_FILE),
        )
    ]


def _draw_panels(lines: Sequence[dict[str, Any]]) -> str:
    figure = new_figure(8, 2.6)
    steps = np.array([line["step"] for line in lines], float)
    for axes, (title, name) in zip(figure.subplots(1, 2), _PANELS.items(), strict=True):
        x, y = thin_out(steps, np.array([line[name] for line in lines], float))
        axes.plot(x, y, color=BLUE, linewidth=0.7, alpha=0.45)
        axes.plot(x, trend(y), color=BLUE, linewidth=1.6)
        axes.set(title=title, xlabel="step")
        style_axes(axes)
    return as_svg(figure)


def _describe_answers(path: Path) -> list[list[Any]]:
    """Return rows with the best and the worst answers of the first and of the last step that sampled any."""
    sampled = read_json_lines(path)
    rows = []
    for name, line in [("first", sampled[0]), ("last", sampled[-1])] if sampled else []:
        answers = sorted(line["answers"], key=lambda answer: -answer["reward"])
        picked = answers if len(answers) <= 2 * _SHOWN else [*answers[:_SHOWN], *answers[-_SHOWN:]]
        rows += [[name, f"{answer['reward']:.3g}", answer["text"][:_MAX_CHARS]] for answer in picked]
    return rows
