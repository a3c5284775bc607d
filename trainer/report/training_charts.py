"""Charts of a training: learning curves by epoch, and metrics by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.charts.style import BLUE, ORANGE, as_svg, new_figure, style_axes

# A series with more points is drawn as the means of this many groups of adjacent points.
_MAX_POINTS = 600


def draw_learning_curves(history: list[dict[str, Any]], metric: str, loss: str) -> str:
    """Return a chart of training loss, validation loss (the key `loss`) and the metric, by epoch."""
    figure = new_figure(8, 2.8)
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    left.plot(
        epochs, [entry["train_loss"] for entry in history], color=BLUE, marker="o", markersize=4, label="training"
    )
    left.plot(epochs, [entry[loss] for entry in history], color=ORANGE, marker="o", markersize=4, label="validation")
    left.set(title="Loss", xlabel="epoch")
    left.legend(frameon=False)
    right.plot(epochs, [entry[metric] for entry in history], color=ORANGE, marker="o", markersize=4)
    right.set(title=f"Validation {metric}", xlabel="epoch")
    for axes in (left, right):
        style_axes(axes)
        axes.set_xticks(epochs if len(epochs) <= 12 else epochs[:: len(epochs) // 10])
    return as_svg(figure)


def draw_steps(lines: Sequence[dict[str, Any]]) -> str:
    """Return a chart of loss, learning rate, gradient norm and throughput by step; `lines` are those of metrics.jsonl."""
    figure = new_figure(8, 4.4)
    steps = np.array([line["step"] for line in lines], float)
    panels = {
        "Loss": "loss",
        "Learning rate": "learning_rate",
        "Gradient norm": "grad_norm",
        "Rows per second": "rows_per_s",
    }
    for axes, (title, name) in zip(figure.subplots(2, 2).ravel(), panels.items(), strict=True):
        values = np.array([line[name] for line in lines], float)
        x, y = thin_out(steps, values)
        if name == "learning_rate":
            axes.plot(x, y, color=BLUE, linewidth=1.4)
        else:
            axes.plot(x, y, color=BLUE, linewidth=0.7, alpha=0.45)
            axes.plot(x, trend(y), color=BLUE, linewidth=1.6)
        axes.set(title=title)
        if y.min() >= 0:  # the loss of sampled answers may be negative
            axes.set(ylim=(0, None))
        style_axes(axes)
    for axes in figure.axes[2:]:
        axes.set(xlabel="step")
    return as_svg(figure)


def thin_out(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return no more points of a line than a chart can show: the means of groups of adjacent points."""
    if len(steps) <= _MAX_POINTS:
        return steps, values
    groups = np.array_split(np.arange(len(steps)), _MAX_POINTS)
    return np.array([steps[group].mean() for group in groups]), np.array([values[group].mean() for group in groups])


def trend(values: np.ndarray) -> np.ndarray:
    """Return the bias-corrected exponential moving average over about a fortieth of the points."""
    decay = 1.0 - 1.0 / max(2.0, len(values) / 40)
    mean, weight, means = 0.0, 0.0, []
    for value in values:
        mean, weight = decay * mean + (1 - decay) * value, decay * weight + 1 - decay
        means.append(mean / weight)
    return np.array(means)
