"""Charts of a search: trials by epoch and by hyperparameter, importance, cost, progress, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.charts.style import BLUE, GRAY, GREEN, GRID, INK, as_svg, new_figure, style_axes
from trainer.runs.result import Finalist, TrialRecord

# An axis with more distinct numbers labels only its ends.
_MAX_LABELS = 8
_MAX_LABEL_LENGTH = 22
# An axis is logarithmic if its largest value is at least this many times its smallest.
_LOG_RATIO = 30.0


def draw_trials(history_by_trial: dict[str, list[dict[str, Any]]], best: str, metric: str) -> str:
    """Return a chart of the metric of every trial by epoch; the winner is green."""
    figure = new_figure(8, 2.8)
    axes = figure.subplots()
    last_epoch = 1
    for name, history in history_by_trial.items():
        epochs = [entry["epoch"] for entry in history]
        last_epoch = max([last_epoch, *epochs])
        is_best = name == best
        axes.plot(
            epochs,
            [entry[metric] for entry in history],
            color=GREEN if is_best else GRAY,
            linewidth=2 if is_best else 1,
            marker="o",
            markersize=5 if is_best else 3,
            zorder=3 if is_best else 2,
        )
    axes.set(xlabel="epoch", title=f"Validation {metric} by trial (winner in green)")
    axes.set_xticks(range(1, last_epoch + 1))
    style_axes(axes)
    return as_svg(figure)


def draw_parallel(
    trials: Sequence[TrialRecord], keys: Sequence[str], metric: str, winner: str, *, higher_is_better: bool
) -> str:
    """Return parallel coordinates: an axis per key and one for the metric, a line per trial, darker for better trials.

    A key that a trial did not search leaves a gap in its line.
    """
    figure = new_figure(max(6.0, 1.6 * (len(keys) + 1)), 3.4)
    axes = figure.subplots()
    scales = [_Scale([trial.values.get(key) for trial in trials]) for key in keys]
    scales.append(_Scale([trial.metric for trial in trials]))
    values = np.array([trial.metric for trial in trials], float)
    order = np.argsort(values if higher_is_better else -values)
    colors = _rank_colors(len(trials))
    for rank, index in enumerate(order):
        trial = trials[index]
        own = [*[trial.values.get(key) for key in keys], trial.metric]
        heights = [scale.position(value) for scale, value in zip(scales, own, strict=True)]
        is_best = trial.name == winner
        axes.plot(
            range(len(heights)),
            [np.nan if height is None else height for height in heights],
            color=GREEN if is_best else colors[rank],
            linewidth=2.4 if is_best else 1.2,
            marker="o",
            markersize=3.5,
            zorder=3 + (len(trials) if is_best else rank),
        )
    for x, scale in enumerate(scales):
        axes.axvline(x, color=GRID, linewidth=1, zorder=1)
        for height, label in scale.ticks:
            axes.text(x + 0.03, height, label, fontsize=7.5, color=INK, va="center", zorder=100)
    names = [*[key.removeprefix("train.").replace(".", ".\n") for key in keys], metric]
    axes.set_xticks(range(len(scales)), names, fontsize=8)
    axes.set(xlim=(-0.1, len(scales) - 0.4), ylim=(-0.06, 1.06), yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    return as_svg(figure)


def draw_importance(shares: Mapping[str, float]) -> str:
    """Return a bar chart of the share of the metric's variance that each key explains."""
    figure = new_figure(3.9, 0.7 + 0.32 * len(shares))
    axes = figure.subplots()
    names = list(shares)[::-1]
    axes.barh(range(len(names)), [shares[name] for name in names], color=BLUE, height=0.6)
    axes.set_yticks(range(len(names)), [name.removeprefix("train.") for name in names])
    axes.set(xlabel="share of the variance", xlim=(0, 1))
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    return as_svg(figure)


def draw_cost(trials: Sequence[TrialRecord], winner: str) -> str:
    """Return a bar chart of the training seconds of each trial; trials stopped early are paler."""
    figure = new_figure(3.9, 2.6)
    axes = figure.subplots()
    for index, trial in enumerate(trials):
        color = GREEN if trial.name == winner else BLUE
        axes.bar(index, trial.seconds, color=color, alpha=1.0 if trial.state == "finished" else 0.45, width=0.8)
    axes.set(xlabel="trials in the order they started", ylabel="training time (s)", xticks=[])
    style_axes(axes)
    return as_svg(figure)


def draw_progress(trials: Sequence[TrialRecord], metric: str, *, higher_is_better: bool) -> str:
    """Return a chart of the best value so far over the training seconds of all trials, one after another."""
    figure = new_figure(3.9, 2.6)
    axes = figure.subplots()
    spent, best, points = 0.0, None, []
    for trial in trials:
        for epoch in trial.history:
            spent += float(epoch["seconds"])
            value = float(epoch[metric])
            best = value if best is None else (max(best, value) if higher_is_better else min(best, value))
            points.append((spent, best))
    axes.step([x for x, _ in points], [y for _, y in points], where="post", color=GREEN, linewidth=2)
    axes.set(xlabel="training time of all trials (s)", ylabel=f"best {metric} so far")
    style_axes(axes)
    return as_svg(figure)


def draw_pareto(finalists: Sequence[Finalist], objectives: Sequence[tuple[str, str]]) -> str:
    """Return a scatter chart of the finalists by the first two objectives; a line joins the Pareto front."""
    figure = new_figure(5.2, 3.4)
    axes = figure.subplots()
    (first, _), (second, _) = objectives[:2]
    measured = [finalist for finalist in finalists if first in finalist.metrics and second in finalist.metrics]
    front = sorted((finalist.metrics[second], finalist.metrics[first]) for finalist in measured if finalist.on_front)
    axes.plot([x for x, _ in front], [y for _, y in front], color=GREEN, linewidth=1.5, zorder=2)
    for finalist in measured:
        x, y = finalist.metrics[second], finalist.metrics[first]
        color = GREEN if finalist.on_front else GRAY
        axes.scatter(x, y, s=46, zorder=3, color=color, marker="x" if finalist.violated else "o")
        axes.annotate(finalist.name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8, color=INK)
    axes.set(xlabel=second, ylabel=first)
    axes.margins(0.15)
    style_axes(axes)
    return as_svg(figure)


def _rank_colors(count: int) -> list[Any]:
    """Return shades of blue from the worst rank (pale) to the best (dark)."""
    import matplotlib as mpl

    return [mpl.colormaps["Blues"](0.18 + 0.72 * rank / max(1, count - 1)) for rank in range(count)]


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class _Scale:
    """Maps the values of one key to heights between 0 and 1, with the labels of its ticks."""

    def __init__(self, values: Sequence[Any]) -> None:
        searched = [value for value in values if value is not None]
        is_numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in searched)
        self._is_numeric = is_numeric and len(set(searched)) > 1
        if self._is_numeric:
            distinct_numbers = sorted(set(searched))
            low, high = distinct_numbers[0], distinct_numbers[-1]
            self._is_log = low > 0 and high / low >= _LOG_RATIO
            self._low, self._high = self._transform(low), self._transform(high)
            labeled = [low, high] if len(distinct_numbers) > _MAX_LABELS else distinct_numbers
            self.ticks = [(float(self.position(value) or 0.0), f"{value:.3g}") for value in labeled]
        else:
            self._names = list(dict.fromkeys(map(_format_value, searched)))
            self.ticks = [(self._position_of_name(name), _shorten(name)) for name in self._names]

    def position(self, value: Any) -> float | None:
        """Return the height of a value; None for a value that was not searched."""
        if value is None:
            return None
        if not self._is_numeric:
            return self._position_of_name(_format_value(value))
        return float((self._transform(value) - self._low) / (self._high - self._low))

    def _transform(self, value: float) -> float:
        return float(np.log(value)) if self._is_log else float(value)

    def _position_of_name(self, name: str) -> float:
        return self._names.index(name) / max(1, len(self._names) - 1) if len(self._names) > 1 else 0.5


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_LABEL_LENGTH else f"…{name[-_MAX_LABEL_LENGTH:]}"
