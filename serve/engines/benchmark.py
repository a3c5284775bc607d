"""Build, time and check one engine on rows like those a replica will see."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cluster.errors import user_error_in
from cluster.files import new_folder
from serve.engines.base import Engine, EngineError, error_summary
from serve.engines.catalog import build_engine, load_engine
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.tasks.encoder import Columns

# Batch size for timing: about that of a busy replica.
_BATCH = 32
# Maximum number of rows to build and time engines with, and maximum number of rows to check them on.
_SAMPLE, _CHECKED = 256, 1000
# How long an engine is timed in batches. Single rows are timed for a third as long.
_SECONDS = 1.0
# Without held-out rows, an engine's scores may differ from the model's own scores by this much.
_SAME_SCORE = 2e-3
# Added to the tolerance, so that floating-point error does not decide whether a metric's drop is within it.
_ROUNDING = 1e-9


class HeldOut(NamedTuple):
    """Held-out rows with their targets, and the metric that an engine must keep."""

    columns: Columns
    targets: np.ndarray
    """One per row, in the form that the `metrics` method of the task's target takes."""
    metric: str
    higher_is_better: bool
    bins: int


class Candidate(NamedTuple):
    """The measurements of one engine."""

    name: str
    rows_per_s: float
    single_ms: float
    build_s: float
    refused: str = ""
    """Why it cannot be chosen; empty if it can."""
    metric: float | None = None
    largest_move: float | None = None
    """Largest difference between the engine's scores and the model's own scores. None if the engine was not checked
    because a faster one was good enough."""

    note: str = ""
    """A note on how it was built."""

    @property
    def is_eligible(self) -> bool:
        """Whether it was checked and keeps the metric."""
        return not self.refused and self.largest_move is not None

    @property
    def timing_line(self) -> str:
        """The line that users see after the engine is timed."""
        if not self.rows_per_s:
            return f"{self.name:<18} left out: {self.refused}"
        line = f"{self.name:<18} {self.rows_per_s:7,.0f} rows/s in batches   {self.single_ms:.2f} ms for one row"
        return f"{line}   ({self.note})" if self.note else line

    @property
    def check_line(self) -> str:
        """The line that users see after the engine is checked."""
        metric = "" if self.metric is None else f", metric {self.metric:.4f}"
        verdict = f"not chosen: {self.refused}" if self.refused else "chosen"
        return f"{self.name:<18} scores change by at most {self.largest_move:.4f}{metric}: {verdict}"


class Benchmark:
    """Times and checks engines of one model, all on the same rows."""

    def __init__(self, predictor: Predictor, held_out: HeldOut | None, folder: Path) -> None:
        self.predictor, self._held_out = predictor, held_out
        columns = held_out.columns if held_out else predictor.parse(golden.load_requests(folder))
        # Random rows, because the rows of a file are often sorted by class or by length.
        rows = np.random.default_rng(0).permutation(len(next(iter(columns.values()))))[: _SAMPLE + _CHECKED]
        encoded = predictor.encode({role: [values[row] for row in rows] for role, values in columns.items()})
        # Check engines on other rows than they are built with. Golden rows serve for both: there are too few to split.
        n_sample = min(_SAMPLE, len(rows) // 2) if held_out else 0
        self.sample = encoded[: n_sample or _SAMPLE]
        self.checked, self._rows = encoded[n_sample:], rows[n_sample:]
        self._own_scores = predictor.scores(self.checked)

    def own_metric(self) -> float | None:
        """Return the metric of the model's own forward pass; None without held-out rows."""
        return self._metric(self._own_scores)

    def build_and_time(self, name: str, folder: Path, scratch: Path) -> Candidate:
        """Build an engine into `folder` and time it.

        A `UserError` is raised. Any other failure is returned as the candidate's `refused`.
        """
        started = time.perf_counter()
        try:
            shutil.rmtree(folder, ignore_errors=True)
            with new_folder(folder) as unfinished:
                note = build_engine(name, self.predictor, self.sample, unfinished, scratch)
            engine = load_engine(name, self.predictor, folder)
            build_s = time.perf_counter() - started
            rows_per_s, single_ms = self._rows_per_s(engine), self._single_ms(engine)
            return Candidate(name, round(rows_per_s, 1), round(single_ms, 3), round(build_s, 2), note=note)
        except EngineError as error:
            reason = str(error)
        except Exception as error:  # raised by a library that does not support this model
            mistake = user_error_in(error)
            if mistake is not None:
                raise mistake from error
            reason = error_summary(error)
        return Candidate(name, 0.0, 0.0, round(time.perf_counter() - started, 2), reason)

    def compare(self, engine: Engine) -> tuple[float, float | None]:
        """Return the largest difference between the engine's scores and the model's own, and the engine's metric.

        The difference is divided by the target's `unit`. The metric is None without held-out rows.
        """
        target, fitted = self.predictor.task.target, self.predictor.contract.fitted
        batches = [self.checked[start : start + _BATCH] for start in range(0, len(self.checked), _BATCH)]
        scores = target.scores(fitted, np.concatenate([engine.logits(batch) for batch in batches]))
        difference = float(np.abs(scores - self._own_scores).max() / target.unit(fitted))
        return difference, self._metric(scores)

    def rejection_reason(self, difference: float, metric: float | None, own: float | None, tolerance: float) -> str:
        """Return why an engine with these results may not be chosen, or "".

        `own` is the metric of the model's own forward pass. `tolerance` is in percentage points; for a metric of which
        a lower value is better, it is in percent of `own`.
        """
        if not np.isfinite(difference):
            return "its scores are not finite"
        if self._held_out is None or metric is None or own is None:
            if difference <= _SAME_SCORE:
                return ""
            return f"a score changes by {difference:.4f}, and there are no held-out rows to check the metric on"
        higher = self._held_out.higher_is_better
        gain = metric - own if higher else own - metric
        allowed = tolerance / 100 * (1.0 if higher else abs(own))
        return "" if gain >= -allowed - _ROUNDING else f"{self._held_out.metric} changes from {own:.4f} to {metric:.4f}"

    def _metric(self, scores: np.ndarray) -> float | None:
        if self._held_out is None:
            return None
        targets, bins = self._held_out.targets[self._rows], self._held_out.bins
        return self.predictor.task.target.metrics(scores, targets, bins).get(self._held_out.metric)

    def _rows_per_s(self, engine: Engine) -> float:
        """Return rows per second in batches. Use each batch's fastest time, so that other work on the machine does not
        count."""
        batches = [self.sample[start : start + _BATCH] for start in range(0, len(self.sample), _BATCH)]
        engine.logits(batches[0])
        fastest = [0.0] * len(batches)
        n_calls, began = 0, time.perf_counter()
        while time.perf_counter() - began < _SECONDS or not n_calls:
            index = n_calls % len(batches)
            started = time.perf_counter()
            engine.logits(batches[index])
            seconds = time.perf_counter() - started
            fastest[index] = min(fastest[index] or seconds, seconds)
            n_calls += 1
        return sum(len(batch) for batch, seconds in zip(batches, fastest, strict=True) if seconds) / sum(fastest)

    def _single_ms(self, engine: Engine) -> float:
        """Return the median milliseconds of a single row."""
        durations: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < _SECONDS / 3 or not durations:
            started = time.perf_counter()
            engine.logits([self.sample[len(durations) % len(self.sample)]])
            durations.append(time.perf_counter() - started)
        return float(np.median(durations)) * 1000
