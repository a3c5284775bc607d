"""TODO docstring."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.charts.style import INK, OF_PART, as_svg, new_figure, plain_axes


def class_sizes(classes: list[dict[str, Any]]) -> str:
    """Rows of each class by part as a skyline, in the order given; for more classes than have room for their names."""
    figure = new_figure(8, 2.4)
    axes = figure.subplots()
    places = np.arange(len(classes))
    below = np.zeros(len(classes))
    for part, colour in OF_PART.items():
        counts = np.array([entry[part] for entry in classes])
        axes.bar(places, counts, bottom=below, width=0.9, color=colour, label=part)
        below += counts
    axes.set(xlabel=f"{len(classes):,} classes, the largest first", ylabel="rows", xlim=(-0.8, len(classes) - 0.2))
    axes.set_xticks([])
    axes.legend(frameon=False, ncols=3, loc="upper right")
    plain_axes(axes)
    return as_svg(figure)


def length_histogram(lengths_by_part: dict[str, np.ndarray], max_length: int | None) -> str:
    """Share of each part's rows by length in tokens; a dashed line where rows are cut."""
    longest = max((int(lengths.max()) for lengths in lengths_by_part.values() if len(lengths)), default=1)
    step = max(1, int(np.ceil(longest / 60)))
    edges = np.arange(0, longest + 2 * step, step) - 0.5
    figure = new_figure(8, 2.8)
    axes = figure.subplots()
    for part, lengths in lengths_by_part.items():
        if len(lengths):
            counts, _ = np.histogram(lengths, edges)
            shares = 100 * counts / len(lengths)
            axes.stairs(shares, edges, color=OF_PART[part], linewidth=1.6, label=part, fill=False)
            if part == "train":
                axes.stairs(shares, edges, color=OF_PART[part], alpha=0.15, fill=True)
    if max_length and max_length <= longest:
        axes.axvline(max_length, color=INK, linestyle="--", linewidth=1, label="max_length")
    axes.set(xlabel="tokens", ylabel="% of the part's rows", xlim=(0, edges[-1]), ylim=(0, None))
    axes.legend(loc="upper right", facecolor="white", edgecolor="none", framealpha=1.0)
    plain_axes(axes)
    return as_svg(figure)
