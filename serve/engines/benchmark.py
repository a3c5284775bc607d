"""TODO docstring."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serve.engines.base import Engine
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.tasks.encoder import Columns

# Batches of that many are what a busy replica computes.
_BATCH = 32


_SAMPLE, _FOR_METRIC = 256, 1000


_SECONDS = 1.0


# Without held-out rows to check on, scores may differ by this much from the model's own.
_SAME = 2e-3


# A metric is a quotient: three rows of a thousand fewer are 0.3 points, and not a bit more.
_ROUNDING = 1e-9


class HeldOut(NamedTuple):
    """Rows with their targets, and by what they are judged."""

    columns: Columns
    targets: np.ndarray
    """As the target's `metrics` takes them."""
    metric: str
    higher_is_better: bool
    bins: int


class Candidate(NamedTuple):
    """What was found out about one engine."""

    name: str
    rows_per_s: float
    single_ms: float
    build_s: float
    refused: str = ""
    """Why it cannot be chosen; empty if it can."""
    metric: float | None = None
    largest_move: float | None = None
    """Of a score, from the model's own; None where it was not looked at, as a faster one was good enough."""

    note: str = ""
    """What else is to be known of how it was built."""

    @property
    def may_be_chosen(self) -> bool:
        """Whether it computes what it should."""
        return not self.refused and self.largest_move is not None


class _Measure:
    """The rows that engines are timed and checked with."""

    def __init__(self, predictor: Predictor, held_out: HeldOut | None, folder: Path) -> None:
        self._predictor, self._held_out = predictor, held_out
        columns = held_out.columns if held_out else predictor.parse(golden.requests(folder))
        # Rows at random: those of a file often lie by class, or by length.
        rows = np.random.default_rng(0).permutation(len(next(iter(columns.values()))))[: _SAMPLE + _FOR_METRIC]
        encoded = predictor.encode({role: [values[at] for at in rows] for role, values in columns.items()})
        # What engines are made with does not judge them; of golden rows there are too few to part them.
        apart = min(_SAMPLE, len(rows) // 2) if held_out else 0
        self.sample = encoded[: apart or _SAMPLE]
        self.checked, self._rows = encoded[apart:], rows[apart:]
        self._own = predictor.scores(self.checked)

    def own(self) -> float | None:
        """Return the metric of the model itself; None where there are no held-out rows."""
        return self._metric(self._own)

    def checks(self, engine: Engine) -> tuple[float, float | None]:
        """Return how far a score moves at most from the model's own, and the metric where rows have targets."""
        target, fitted = self._predictor.task.target, self._predictor.contract.fitted
        parts = [engine.logits(self.checked[at : at + _BATCH]) for at in range(0, len(self.checked), _BATCH)]
        scores = target.scores(fitted, np.concatenate(parts))
        move = float(np.abs(scores - self._own).max() / target.unit(fitted))
        return move, self._metric(scores)

    def _metric(self, scores: np.ndarray) -> float | None:
        if self._held_out is None:
            return None
        target = self._predictor.task.target
        return target.metrics(scores, self._held_out.targets[self._rows], self._held_out.bins).get(
            self._held_out.metric
        )

    def speed(self, engine: Engine) -> tuple[float, float]:
        """Return rows a second in batches, and the median milliseconds of one row.

        Of each batch the least time counts: whatever else the machine does for a moment must not decide.
        """
        batches = [self.sample[at : at + _BATCH] for at in range(0, len(self.sample), _BATCH)]
        engine.logits(batches[0])
        least = [0.0] * len(batches)
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < _SECONDS or not done:
            at = done % len(batches)
            started = time.perf_counter()
            engine.logits(batches[at])
            seconds = time.perf_counter() - started
            least[at] = min(least[at] or seconds, seconds)
            done += 1
        rows_per_s = sum(len(batch) for batch, seconds in zip(batches, least, strict=True) if seconds) / sum(least)
        took: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < _SECONDS / 3 or not took:
            started = time.perf_counter()
            engine.logits([self.sample[len(took) % len(self.sample)]])
            took.append(time.perf_counter() - started)
        return rows_per_s, float(np.median(took)) * 1000

    def refusal(self, move: float, metric: float | None, own: float | None, tolerance: float) -> str:
        """Return why an engine may not be chosen, or ""."""
        if not np.isfinite(move):
            return "its scores are no numbers"
        if self._held_out is None or metric is None or own is None:
            return (
                "" if move <= _SAME else f"a score moves by {move:.4f}, and there are no held-out rows to check it on"
            )
        higher = self._held_out.higher_is_better
        gain = metric - own if higher else own - metric
        allowed = tolerance / 100 * (1.0 if higher else abs(own))
        return "" if gain >= -allowed - _ROUNDING else f"{self._held_out.metric} moves from {own:.4f} to {metric:.4f}"
