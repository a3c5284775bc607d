"""Charts about predictions: numbers against the truth, and how well scores part rows of one kind from the others.

Letters in shapes: B rows, C classes or tags.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from trainer.charts.style import BLUE, GRID, INK, ORANGE, as_svg, new_figure, plain_axes
from trainer.targets.metrics.classification import Ranked

# With more rows dots hide each other, and a picture of them is large: hexagons then, darker for more rows.
_MOST_DOTS = 3000


#: As many as the palette has colours; of more labels than that only means are drawn.
MOST_CURVES = 10


_CURVE_POINTS = 200


Points: TypeAlias = tuple[np.ndarray, np.ndarray]


def predicted_against_true(predicted_B: np.ndarray, targets_B: np.ndarray) -> str:
    """Predicted against true number; on the diagonal it is right."""
    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    _cloud(axes, targets_B, predicted_B)
    axes.axline((float(targets_B.mean()),) * 2, slope=1, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="true", ylabel="predicted")
    plain_axes(axes)
    return as_svg(figure)


def residuals(predicted_B: np.ndarray, targets_B: np.ndarray) -> str:
    """Error against prediction."""
    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    _cloud(axes, predicted_B, predicted_B - targets_B)
    axes.axhline(0, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="predicted", ylabel="error")
    plain_axes(axes)
    return as_svg(figure)


def residual_histogram(errors_B: np.ndarray) -> str:
    """Share of rows by error."""
    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    n_bins = int(np.clip(np.sqrt(len(errors_B)), 5, 50))
    counts, edges = np.histogram(errors_B, n_bins)
    axes.stairs(100 * counts / max(1, len(errors_B)), edges, color=BLUE, alpha=0.75, fill=True)
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="error", ylabel="% of rows")
    plain_axes(axes)
    return as_svg(figure)


def roc(curves: dict[str, Ranked], pooled: Ranked | None) -> str:
    """True against false positive rate by threshold, a curve for each label; where all are `pooled`, their mean and that."""

    def on_grid(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.interp(grid, x, y)

    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1, linestyle="--")
    _curves(axes, roc_points, on_grid, curves, pooled)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    plain_axes(axes)
    axes.legend(loc="lower right", facecolor="white", edgecolor="none", fontsize=8)
    return as_svg(figure)


def precision_recall(curves: dict[str, Ranked], pooled: Ranked | None) -> str:
    """Precision against recall by threshold, in the same way."""

    def on_grid(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # The precision of the highest threshold that still finds so many: a straight line between two would promise more.
        return y[np.searchsorted(x, grid, side="left").clip(max=len(x) - 1)]

    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    _curves(axes, precision_recall_points, on_grid, curves, pooled)
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    plain_axes(axes)
    axes.legend(loc="lower left", facecolor="white", edgecolor="none", fontsize=8)
    return as_svg(figure)


def roc_points(found: Ranked) -> Points:
    """Return false and true positive rates from the highest threshold on, beginning where nothing is found."""
    return np.append(0.0, found.misses_T / found.misses_T[-1]), np.append(0.0, found.hits_T / found.hits_T[-1])


def precision_recall_points(found: Ranked) -> Points:
    """Return recall and precision from the highest threshold on."""
    precision_T = found.hits_T / (found.hits_T + found.misses_T)
    return np.append(0.0, found.hits_T / found.hits_T[-1]), np.append(precision_T[0], precision_T)


def _curves(
    axes: Any,
    points: Callable[[Ranked], Points],
    on_grid: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    curves: dict[str, Ranked],
    pooled: Ranked | None,
) -> None:
    import matplotlib as mpl

    if pooled is None:
        for (label, found), colour in zip(curves.items(), mpl.color_sequences["tab10"], strict=False):
            axes.plot(*_thinned(*points(found)), color=colour, linewidth=1.5, label=_short(label))
    else:
        grid = np.linspace(0, 1, _CURVE_POINTS)
        mean = np.mean([on_grid(grid, *points(found)) for found in curves.values()], axis=0)
        axes.plot(grid, mean, color=BLUE, linewidth=1.8, label=f"mean of {len(curves)} (macro)")
        axes.plot(*_thinned(*points(pooled)), color=ORANGE, linewidth=1.8, label="all pooled (micro)")


def _thinned(x: np.ndarray, y: np.ndarray) -> Points:
    """Return points evenly spread along the line, as many as a picture this small shows."""
    along = np.cumsum(np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0])))
    kept = np.searchsorted(along, np.linspace(0, along[-1], 2 * _CURVE_POINTS))
    kept = np.unique(np.append(kept, [0, len(x) - 1]).clip(max=len(x) - 1))
    return x[kept], y[kept]


def _short(label: str) -> str:
    """A dollar sign would begin a formula, and a leading underscore hides a label from a legend."""
    shown = label if len(label) <= 24 else label[:23] + "…"
    return ("\u200b" + shown if shown.startswith("_") else shown).replace("$", r"\$")


def _cloud(axes: Any, x_B: np.ndarray, y_B: np.ndarray) -> None:
    if len(x_B) <= _MOST_DOTS:
        axes.scatter(x_B, y_B, s=14, color=BLUE, alpha=0.45, linewidth=0, rasterized=len(x_B) > 500)
    else:
        axes.hexbin(x_B, y_B, gridsize=36, bins="log", mincnt=1, cmap="Blues", vmin=0.2, linewidths=0.1)


_MAX_TICKS = 30


def confusion(counts_CC: np.ndarray, labels: list[str]) -> str:
    """Counts of true against predicted class, coloured by the share of the true class."""
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
            colour = "white" if share_CC[row, column] > 0.55 else INK
            axes.text(column, row, str(counts_CC[row, column]), ha="center", va="center", color=colour, fontsize=8)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0, colors=INK)
    return as_svg(figure)


def calibration(bins: list[dict[str, Any]]) -> str:
    """Accuracy against confidence; on the diagonal a score means what it says."""
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
    plain_axes(axes)
    return as_svg(figure)
