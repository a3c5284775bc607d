"""Charts about predictions: numbers against the truth, confusion, calibration, ROC and precision-recall.

Letters in shapes: B rows, C classes or tags, T distinct thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from trainer.charts.style import BLUE, GRID, INK, ORANGE, as_svg, new_figure, style_axes
from trainer.targets.metrics.ranking import RankedScores

#: The number of colors in the palette. For more labels, a chart draws only their mean and the pooled curve.
MAX_CURVES = 10

# More dots would hide each other and make the picture large. Hexagons replace them, darker for more rows.
_MAX_DOTS = 3000
_CURVE_POINTS = 200
# A confusion matrix of more classes has no labels.
_MAX_TICKS = 30

#: x and y of a curve.
Points: TypeAlias = tuple[np.ndarray, np.ndarray]


def scatter_chart(predicted_B: np.ndarray, targets_B: np.ndarray) -> str:
    """Return predicted against true numbers as SVG; a point on the diagonal is right."""
    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    _draw_cloud(axes, targets_B, predicted_B)
    axes.axline((float(targets_B.mean()),) * 2, slope=1, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="true", ylabel="predicted")
    style_axes(axes)
    return as_svg(figure)


def residual_chart(predicted_B: np.ndarray, targets_B: np.ndarray) -> str:
    """Return errors against predictions as SVG."""
    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    _draw_cloud(axes, predicted_B, predicted_B - targets_B)
    axes.axhline(0, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="predicted", ylabel="error")
    style_axes(axes)
    return as_svg(figure)


def residual_histogram_chart(errors_B: np.ndarray) -> str:
    """Return the share of rows by error as SVG."""
    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    n_bins = int(np.clip(np.sqrt(len(errors_B)), 5, 50))
    counts, edges = np.histogram(errors_B, n_bins)
    axes.stairs(100 * counts / max(1, len(errors_B)), edges, color=BLUE, alpha=0.75, fill=True)
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="error", ylabel="% of rows")
    style_axes(axes)
    return as_svg(figure)


def roc_chart(curves: dict[str, RankedScores], pooled: RankedScores | None) -> str:
    """Return true against false positive rate by threshold as SVG.

    There is one curve per label; with `pooled`, only the labels' mean and the pooled curve.
    """
    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1, linestyle="--")
    _draw_curves(axes, roc_points, _interpolate, curves, pooled)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    style_axes(axes)
    axes.legend(loc="lower right", facecolor="white", edgecolor="none", fontsize=8)
    return as_svg(figure)


def precision_recall_chart(curves: dict[str, RankedScores], pooled: RankedScores | None) -> str:
    """Return precision against recall by threshold as SVG.

    There is one curve per label; with `pooled`, only the labels' mean and the pooled curve.
    """
    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    _draw_curves(axes, precision_recall_points, _step, curves, pooled)
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    style_axes(axes)
    axes.legend(loc="lower left", facecolor="white", edgecolor="none", fontsize=8)
    return as_svg(figure)


def roc_points(ranked: RankedScores) -> Points:
    """Return false and true positive rates from the highest threshold down, starting at (0, 0)."""
    return np.append(0.0, ranked.misses_T / ranked.misses_T[-1]), np.append(0.0, ranked.hits_T / ranked.hits_T[-1])


def precision_recall_points(ranked: RankedScores) -> Points:
    """Return recall and precision from the highest threshold down."""
    precision_T = ranked.hits_T / (ranked.hits_T + ranked.misses_T)
    return np.append(0.0, ranked.hits_T / ranked.hits_T[-1]), np.append(precision_T[0], precision_T)


def confusion_chart(counts_CC: np.ndarray, labels: list[str]) -> str:
    """Return counts of true against predicted class as SVG, colored by the share of the true class's rows."""
    n = len(labels)
    size = min(9.0, max(4.5, 0.45 * n + 2.0))
    figure = new_figure(size, size * 0.92)
    axes = figure.subplots()
    share_CC = counts_CC / np.maximum(1, counts_CC.sum(axis=1, keepdims=True))
    axes.imshow(share_CC, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_visible(False)
    if n <= _MAX_TICKS:
        labels = [label.replace("$", r"\$") for label in labels]  # a dollar sign would begin a formula
        axes.set_xticks(range(n), labels, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(n), labels)
        for row, column in np.argwhere(counts_CC > 0):
            color = "white" if share_CC[row, column] > 0.55 else INK
            axes.text(column, row, str(counts_CC[row, column]), ha="center", va="center", color=color, fontsize=8)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0, colors=INK)
    return as_svg(figure)


def calibration_chart(bins: list[dict[str, Any]]) -> str:
    """Return accuracy against confidence as SVG; on the diagonal, scores are true probabilities."""
    figure = new_figure(3.9, 3.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1, linestyle="--")
    total = sum(entry["rows"] for entry in bins)
    axes.scatter(
        [entry["confidence"] for entry in bins],
        [entry["accuracy"] for entry in bins],
        s=[20 + 400 * entry["rows"] / total for entry in bins],
        color=BLUE,
        alpha=0.75,
    )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.03))
    style_axes(axes)
    return as_svg(figure)


def _interpolate(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.interp(grid, x, y)


def _step(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Use the precision at the highest threshold that reaches each recall: interpolated values would be too high.
    return y[np.searchsorted(x, grid, side="left").clip(max=len(x) - 1)]


def _draw_curves(
    axes: Any,
    points: Callable[[RankedScores], Points],
    on_grid: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    curves: dict[str, RankedScores],
    pooled: RankedScores | None,
) -> None:
    import matplotlib as mpl

    if pooled is None:
        for (label, ranked), color in zip(curves.items(), mpl.color_sequences["tab10"], strict=False):
            axes.plot(*_thin_out(*points(ranked)), color=color, linewidth=1.5, label=_shorten(label))
    else:
        grid = np.linspace(0, 1, _CURVE_POINTS)
        mean = np.mean([on_grid(grid, *points(ranked)) for ranked in curves.values()], axis=0)
        axes.plot(grid, mean, color=BLUE, linewidth=1.8, label=f"mean of {len(curves)} (macro)")
        axes.plot(*_thin_out(*points(pooled)), color=ORANGE, linewidth=1.8, label="all pooled (micro)")


def _thin_out(x: np.ndarray, y: np.ndarray) -> Points:
    """Return points evenly spread along the line, no more than a picture of this size can show."""
    distance = np.cumsum(np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0])))
    selected = np.searchsorted(distance, np.linspace(0, distance[-1], 2 * _CURVE_POINTS))
    selected = np.unique(np.append(selected, [0, len(x) - 1]).clip(max=len(x) - 1))
    return x[selected], y[selected]


def _shorten(label: str) -> str:
    # A dollar sign would begin a formula, and a leading underscore would hide the label from the legend.
    text = label if len(label) <= 24 else label[:23] + "…"
    return ("\u200b" + text if text.startswith("_") else text).replace("$", r"\$")


def _draw_cloud(axes: Any, x_B: np.ndarray, y_B: np.ndarray) -> None:
    if len(x_B) <= _MAX_DOTS:
        axes.scatter(x_B, y_B, s=14, color=BLUE, alpha=0.45, linewidth=0, rasterized=len(x_B) > 500)
    else:
        axes.hexbin(x_B, y_B, gridsize=36, bins="log", mincnt=1, cmap="Blues", vmin=0.2, linewidths=0.1)
