"""TODO docstring."""

from __future__ import annotations

from typing import Any

from trainer.charts.style import BLUE, ORANGE, as_svg, new_figure, plain_axes


def learning_curves(history: list[dict[str, Any]], metric: str, loss: str = "log_loss") -> str:
    """Loss of training and validation, and the metric, by epoch."""
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
        plain_axes(axes)
        axes.set_xticks(epochs if len(epochs) <= 12 else epochs[:: len(epochs) // 10])
    return as_svg(figure)
