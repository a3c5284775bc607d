"""The report of a run or an evaluation: one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.charts.section import ReportSection
from trainer.registry.gate import GateDecision
from trainer.report.html import render_page
from trainer.targets.metrics.summary import COUNTS

# Shown first, in this order; the other metrics follow.
_FIRST_METRICS = (
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "exact_match",
    "rmse",
    "mae",
    "r2",
    "roc_auc",
    "pr_auc",
    "log_loss",
)


@dataclass(frozen=True)
class ReportPage:
    """The content of a report, from top to bottom."""

    title: str
    subtitle: str
    """The rows that the metrics were computed on."""
    metrics: Mapping[str, float]
    """Shown as tiles; may be empty."""
    main_metric: str
    """The metric that picks epochs, trials and versions; the page highlights it."""
    sections: Sequence[ReportSection]
    lineage: Mapping[str, Any]
    """The origin of the model, as name and value; underscores in names are shown as spaces. May be empty."""
    decision: GateDecision | None = None
    """The gate's decision, for a registered version."""
    spec_text: str = ""
    """The spec of the run as YAML; empty for an evaluation."""
    warnings: Sequence[str] = ()
    """Sentences that the reader must see first."""


def write_page(path: Path, page: ReportPage) -> None:
    """Write the report to `path`."""
    from markupsafe import Markup

    render_page(
        path,
        "template.html",
        title=page.title,
        subtitle=page.subtitle,
        page=page,
        metrics=_order_metrics(page.metrics),
        lineage=[(name.replace("_", " "), value) for name, value in page.lineage.items()],
        markup=Markup,
    )


def _order_metrics(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the names of the metrics in the order of the page, with their values as text."""
    first = [name for name in _FIRST_METRICS if name in metrics]
    return [(name, _format_tile(name, metrics[name])) for name in dict.fromkeys([*first, *metrics])]


def _format_tile(name: str, value: float) -> str:
    if name in COUNTS:
        return f"{value:,.6g}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"
