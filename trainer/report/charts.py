"""Charts of a report as SVG text, drawn with matplotlib's object interface: no pyplot, no display, no global state."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

INK, GRID = "#1f2933", "#d9dee3"
BLUE, ORANGE, GREEN = "#2563a8", "#c8641b", "#2e7d4f"
OF_PART = {"train": BLUE, "validation": ORANGE, "test": GREEN}
_MAX_TICKS = 30


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text: small files, and a reader's own fonts.
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "raymill"
    mpl.rcParams["font.family"] = "sans-serif"
    mpl.rcParams["font.size"] = 9
    return Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: Any) -> str:
    """Return a figure as the text of an `<svg>`, the same for the same figure."""
    sink = io.StringIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]


def plain_axes(axes: Any) -> None:
    """Take what tells nothing off the axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, length=3)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


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
