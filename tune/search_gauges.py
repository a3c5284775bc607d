"""A search as gauges for Prometheus: its trials by state, and the best value so far."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import NamedTuple

from cluster.monitoring.gauges import GaugeInfo, Gauges

STATES = ("running", "finished", "stopped", "failed")
TRIALS = GaugeInfo("raymill_search_trials", "Trials of the search by state.", ("state",))
PLANNED = GaugeInfo("raymill_search_trials_planned", "Trials that the search will have, with those of the finals.")
BEST = GaugeInfo("raymill_search_best", "The best value of `evaluate.metric` on the validation rows.", ("metric",))
GAUGES = (TRIALS, PLANNED, BEST)


class SearchState(NamedTuple):
    """What a search has done so far."""

    trials: Counter[str]
    """Trials by state."""
    n_planned: int
    metric: str
    best: float | None


def publish_search(gauges: Gauges, state: SearchState) -> None:
    """Set the gauges of a search. A value that cannot be published never stops the search."""
    with contextlib.suppress(Exception):
        for name in STATES:
            gauges.set(TRIALS, state.trials[name], state=name)
        gauges.set(PLANNED, state.n_planned)
        if state.best is not None:
            gauges.set(BEST, state.best, metric=state.metric)
