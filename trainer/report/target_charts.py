"""Charts about predictions: numbers against the truth, and how well scores part rows of one kind from the others.

Letters in shapes: B rows, C classes or tags.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.report.charts import BLUE, GRID, INK, ORANGE, as_svg, new_figure, plain_axes

# With more rows dots hide each other, and a picture of them is large: hexagons then, darker for more rows.
_MOST_DOTS = 3000
# With more curves than the palette has colours only their means are drawn.
MOST_CURVES = 10
_CURVE_POINTS = 200


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


def roc_points(hits_B: np.ndarray, scores_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates of rows, bool `hits_B` being the truth, from the highest threshold on."""
    from sklearn.metrics import roc_curve

    false_rate, true_rate, _ = roc_curve(hits_B, scores_B, drop_intermediate=False)
    return false_rate, true_rate


def precision_recall_points(hits_B: np.ndarray, scores_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision in the same way."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(hits_B, scores_B)
    return recall[::-1], precision[::-1]


def roc(scores_BC: np.ndarray, hits_BC: np.ndarray, labels: list[str]) -> str:
    """True against false positive rate by threshold, a curve for each label, or their means of more than `MOST_CURVES`."""

    def on_grid(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.interp(grid, x, y)

    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1, linestyle="--")
    _curves(axes, roc_points, on_grid, scores_BC, hits_BC, labels)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    plain_axes(axes)
    axes.legend(loc="lower right", facecolor="white", edgecolor="none", fontsize=8)
    return as_svg(figure)


def precision_recall(scores_BC: np.ndarray, hits_BC: np.ndarray, labels: list[str]) -> str:
    """Precision against recall by threshold, a curve for each label, or their means of more than `MOST_CURVES`."""

    def on_grid(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # The precision of the highest threshold that still finds so many: a straight line between two would promise more.
        return y[np.searchsorted(x, grid, side="left").clip(max=len(x) - 1)]

    figure = new_figure(3.9, 3.4)
    axes = figure.subplots()
    _curves(axes, precision_recall_points, on_grid, scores_BC, hits_BC, labels)
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    plain_axes(axes)
    axes.legend(loc="lower left", facecolor="white", edgecolor="none", fontsize=8)
    return as_svg(figure)


def _curves(
    axes: Any, points: Any, on_grid: Any, scores_BC: np.ndarray, hits_BC: np.ndarray, labels: list[str]
) -> None:
    """Draw a curve for each column that has rows of both kinds; of too many the mean, and that of all pairs as one."""
    import matplotlib as mpl

    both = [at for at in range(len(labels)) if 0 < hits_BC[:, at].sum() < len(hits_BC)]
    found = [points(hits_BC[:, at], scores_BC[:, at]) for at in both]
    if len(found) <= MOST_CURVES:
        colours = mpl.color_sequences["tab10"]
        for at, curve, colour in zip(both, found, colours, strict=False):
            axes.plot(*_thinned(*curve), color=colour, linewidth=1.5, label=_short(labels[at]))
    else:
        grid = np.linspace(0, 1, _CURVE_POINTS)
        mean = np.mean([on_grid(grid, *curve) for curve in found], axis=0)
        axes.plot(grid, mean, color=BLUE, linewidth=1.8, label=f"mean of {len(found)} (macro)")
        pooled = points(hits_BC[:, both].ravel(), scores_BC[:, both].ravel())
        axes.plot(*_thinned(*pooled), color=ORANGE, linewidth=1.8, label="all pooled (micro)")


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
