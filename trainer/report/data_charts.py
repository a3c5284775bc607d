"""Charts of the data report: rows by class, and text lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.charts.style import INK, PART_COLORS, as_svg, new_figure, style_axes


def draw_class_sizes(classes: list[dict[str, Any]]) -> str:
    """Return stacked bars of the rows of each class by part, without names: for too many classes to label."""
    figure = new_figure(8, 2.4)
    axes = figure.subplots()
    positions = np.arange(len(classes))
    below = np.zeros(len(classes))
    for part, color in PART_COLORS.items():
        counts = np.array([entry[part] for entry in classes])
        axes.bar(positions, counts, bottom=below, width=0.9, color=color, label=part)
        below += counts
    axes.set(xlabel=f"{len(classes):,} classes, largest first", ylabel="rows", xlim=(-0.8, len(classes) - 0.2))
    axes.set_xticks([])
    axes.legend(frameon=False, ncols=3, loc="upper right")
    style_axes(axes)
    return as_svg(figure)


def draw_length_histogram(lengths_by_part: dict[str, np.ndarray], max_length: int | None) -> str:
    """Return a histogram of each part's rows by length in tokens, with a dashed line at `max_length`."""
    longest = max((int(lengths.max()) for lengths in lengths_by_part.values() if len(lengths)), default=1)
    step = max(1, int(np.ceil(longest / 60)))
    edges = np.arange(0, longest + 2 * step, step) - 0.5
    figure = new_figure(8, 2.8)
    axes = figure.subplots()
    for part, lengths in lengths_by_part.items():
        if len(lengths):
            counts, _ = np.histogram(lengths, edges)
            shares = 100 * counts / len(lengths)
            axes.stairs(shares, edges, color=PART_COLORS[part], linewidth=1.6, label=part, fill=False)
            if part == "train":
                axes.stairs(shares, edges, color=PART_COLORS[part], alpha=0.15, fill=True)
    if max_length and max_length <= longest:
        axes.axvline(max_length, color=INK, linestyle="--", linewidth=1, label="max_length")
    axes.set(xlabel="tokens", ylabel="% of the part's rows", xlim=(0, edges[-1]), ylim=(0, None))
    axes.legend(loc="upper right", facecolor="white", edgecolor="none", framealpha=1.0)
    style_axes(axes)
    return as_svg(figure)
