"""Charts of a search: every trial as a line over its values, what the keys explain, cost, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.charts.style import BLUE, GREEN, GRID, INK, as_svg, new_figure, plain_axes
from trainer.runs.result import Finalist, TrialRecord

_GREY = "#9aa5b1"


_MAX_LABELS = 8


_LONGEST_LABEL = 22


_LOG_FROM = 30.0


def parallel(
    trials: Sequence[TrialRecord], keys: Sequence[str], metric: str, winner: str, *, more_is_better: bool
) -> str:
    """One axis a key and one for the metric, one line a trial, darker the better; a key that was not searched has a gap."""
    figure = new_figure(max(6.0, 1.6 * (len(keys) + 1)), 3.4)
    axes = figure.subplots()
    scales = [_Scale([trial.values.get(key) for trial in trials]) for key in keys]
    scales.append(_Scale([trial.metric for trial in trials]))
    values = np.array([trial.metric for trial in trials], float)
    order = np.argsort(values if more_is_better else -values)
    colours = _shades(len(trials))
    for rank, at in enumerate(order):
        trial = trials[at]
        own = [*[trial.values.get(key) for key in keys], trial.metric]
        places = [scale.place(value) for scale, value in zip(scales, own, strict=True)]
        best = trial.name == winner
        axes.plot(
            range(len(places)),
            [np.nan if place is None else place for place in places],
            color=GREEN if best else colours[rank],
            linewidth=2.4 if best else 1.2,
            marker="o",
            markersize=3.5,
            zorder=3 + (len(trials) if best else rank),
        )
    for at, scale in enumerate(scales):
        axes.axvline(at, color=GRID, linewidth=1, zorder=1)
        for place, label in scale.ticks:
            axes.text(at + 0.03, place, label, fontsize=7.5, color=INK, va="center", zorder=100)
    names = [*[key.removeprefix("train.").replace(".", ".\n") for key in keys], metric]
    axes.set_xticks(range(len(scales)), names, fontsize=8)
    axes.set(xlim=(-0.1, len(scales) - 0.4), ylim=(-0.06, 1.06), yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    return as_svg(figure)


def importance(shares: Mapping[str, float]) -> str:
    """How much of the metric's spread each key explains."""
    figure = new_figure(3.9, 0.7 + 0.32 * len(shares))
    axes = figure.subplots()
    names = list(shares)[::-1]
    axes.barh(range(len(names)), [shares[name] for name in names], color=BLUE, height=0.6)
    axes.set_yticks(range(len(names)), [name.removeprefix("train.") for name in names])
    axes.set(xlabel="share of the spread", xlim=(0, 1))
    plain_axes(axes)
    axes.grid(visible=False, axis="y")
    return as_svg(figure)


def cost(trials: Sequence[TrialRecord], winner: str) -> str:
    """Seconds of training by trial, those that were ended early paler."""
    figure = new_figure(3.9, 2.6)
    axes = figure.subplots()
    for at, trial in enumerate(trials):
        colour = GREEN if trial.name == winner else BLUE
        axes.bar(at, trial.seconds, color=colour, alpha=1.0 if trial.state == "finished" else 0.45, width=0.8)
    axes.set(xlabel="trial, in the order they began", ylabel="seconds of training", xticks=[])
    plain_axes(axes)
    return as_svg(figure)


def reached(trials: Sequence[TrialRecord], metric: str, *, more_is_better: bool) -> str:
    """The best value so far against the seconds of training spent, all trials one after the other."""
    figure = new_figure(3.9, 2.6)
    axes = figure.subplots()
    spent, best, points = 0.0, None, []
    for trial in trials:
        for epoch in trial.history:
            spent += float(epoch["seconds"])
            value = float(epoch[metric])
            best = value if best is None else (max(best, value) if more_is_better else min(best, value))
            points.append((spent, best))
    axes.step([x for x, _ in points], [y for _, y in points], where="post", color=GREEN, linewidth=2)
    axes.set(xlabel="seconds of training, all trials", ylabel=f"best {metric} so far")
    plain_axes(axes)
    return as_svg(figure)


def pareto(finalists: Sequence[Finalist], goals: Sequence[tuple[str, str]]) -> str:
    """The finalists by the first two goals; those on the front are joined."""
    figure = new_figure(5.2, 3.4)
    axes = figure.subplots()
    (first, _), (second, _) = goals[:2]
    there = [one for one in finalists if first in one.figures and second in one.figures]
    front = sorted((one.figures[second], one.figures[first]) for one in there if one.on_front)
    axes.plot([x for x, _ in front], [y for _, y in front], color=GREEN, linewidth=1.5, zorder=2)
    for one in there:
        x, y = one.figures[second], one.figures[first]
        colour = GREEN if one.on_front else _GREY
        axes.scatter(x, y, s=46, zorder=3, color=colour, marker="x" if one.broken else "o")
        axes.annotate(one.name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8, color=INK)
    axes.set(xlabel=second, ylabel=first)
    axes.margins(0.15)
    plain_axes(axes)
    return as_svg(figure)


def _shades(count: int) -> list[Any]:
    """Return greys to blues for the worst to the best."""
    import matplotlib as mpl

    return [mpl.colormaps["Blues"](0.18 + 0.72 * at / max(1, count - 1)) for at in range(count)]


def _name(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class _Scale:
    """Where the values of one key stand between 0 and 1, and what is written beside them."""

    def __init__(self, values: Sequence[Any]) -> None:
        there = [value for value in values if value is not None]
        self._numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in there)
        if self._numbers and len(set(there)) > 1:
            self._log = min(there) > 0 and max(there) / min(there) >= _LOG_FROM
            self._low, self._high = self._at(min(there)), self._at(max(there))
            ends = [min(there), max(there)] if len(set(there)) > _MAX_LABELS else sorted(set(there))
            self.ticks = [(float(self.place(value) or 0.0), f"{value:.3g}") for value in ends]
        else:
            self._numbers = False
            self._known = list(dict.fromkeys(map(_name, there)))
            self.ticks = [
                (self._of_name(name), name if len(name) <= _LONGEST_LABEL else f"…{name[-_LONGEST_LABEL:]}")
                for name in self._known
            ]

    def place(self, value: Any) -> float | None:
        """Return where a value stands, None for one that was not searched."""
        if value is None:
            return None
        if not self._numbers:
            return self._of_name(_name(value))
        return float((self._at(value) - self._low) / (self._high - self._low))

    def _at(self, value: float) -> float:
        return float(np.log(value)) if self._log else float(value)

    def _of_name(self, name: str) -> float:
        return self._known.index(name) / max(1, len(self._known) - 1) if len(self._known) > 1 else 0.5


def trials(history_by_trial: dict[str, list[dict[str, Any]]], best: str, metric: str) -> str:
    """The metric of every trial by epoch; the winner stands out."""
    figure = new_figure(8, 2.8)
    axes = figure.subplots()
    longest = 1
    for name, history in history_by_trial.items():
        epochs = [entry["epoch"] for entry in history]
        longest = max([longest, *epochs])
        won = name == best
        axes.plot(
            epochs,
            [entry[metric] for entry in history],
            color=GREEN if won else "#9aa5b1",
            linewidth=2 if won else 1,
            marker="o",
            markersize=5 if won else 3,
            zorder=3 if won else 2,
        )
    axes.set(xlabel="epoch", title=f"Validation {metric} by trial (winner in green)")
    axes.set_xticks(range(1, longest + 1))
    plain_axes(axes)
    return as_svg(figure)
