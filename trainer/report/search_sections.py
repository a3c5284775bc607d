"""What a report shows of a search, beside the table of its trials."""

from __future__ import annotations

from trainer.charts.section import Chart, Column, Section
from trainer.report import search_charts
from trainer.runs.result import RunResult, SearchRecord
from trainer.spec.run import LOWER_IS_BETTER

_FEWEST = 2


def sections(result: RunResult, metric: str) -> list[Section]:
    """Return the sections of a search; none where there was none."""
    if result.search is None:
        return []
    judged = [trial for trial in result.trials if trial.metric is not None]
    winner = result.folder.name.partition("-")[0]  # of a final, the trial that it is of
    found = []
    if len(judged) >= _FEWEST:
        keys = list(dict.fromkeys(key for trial in judged for key in trial.values))
        more = metric not in LOWER_IS_BETTER
        lines = search_charts.parallel(judged, keys, metric, winner, more_is_better=more)
        found.append(
            Section("Values that were tried", [Chart(lines, "One line a trial: green the winner, paler the worse.")])
        )
        charts = [
            Chart(search_charts.reached(judged, metric, more_is_better=more), "How soon the search got where it got."),
            Chart(search_charts.cost(result.trials, winner), "Paler: ended early. Green: the winner."),
        ]
        found.append(Section("What it cost", charts))
    if result.search.importance:
        note = (
            "fANOVA over the trials (Hutter et al. 2014): small with few trials, and blind to keys that hardly varied."
        )
        chart = Chart(search_charts.importance(result.search.importance))
        found.append(Section("What mattered", [chart], note=note))
    if result.search.finalists:
        found.append(_finals(result.search))
    return found


def _finals(search: SearchRecord) -> Section:
    names = list(dict.fromkeys(name for one in search.finalists for name in one.figures))
    columns = [Column("trial"), Column("seeds", True), *[Column(name, True) for name in names]]
    columns += [Column("on the front"), Column("does not keep to", wrong=True)]
    rows = [
        [
            one.name,
            len(one.seeds),
            *[_figure(one.figures.get(name)) + _spread(one.seeds, name == search.goals[0][0]) for name in names],
            "yes" if one.on_front else "",
            ", ".join(one.broken),
        ]
        for one in search.finalists
    ]
    charts = []
    if len(search.goals) > 1:
        charts = [
            Chart(search_charts.pareto(search.finalists, search.goals), "The Pareto front in green; x breaks a rule.")
        ]
    keeps = f" Constraints: {', '.join(search.constraints)}." if search.constraints else ""
    return Section("Finals", charts, columns, rows, f"Means over the seeds; the first wins.{keeps}")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def _spread(seeds: dict[int, float], is_metric: bool) -> str:
    if not is_metric or len(seeds) < _FEWEST:
        return ""
    return f" ({min(seeds.values()):.4f} to {max(seeds.values()):.4f})"
