"""Build, time and check one engine on rows like those a replica will see."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cluster.errors import error_summary, user_error_in
from cluster.files import new_folder
from serve.engines.base import EngineError, ForwardEngine
from serve.engines.catalog import build_engine, load_engine
from serve.engines.guard import judge
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.tasks.encoder import Columns

# Batch size for timing: about that of a busy replica.
_BATCH = 32
# Maximum number of rows to build and time engines with, and maximum number of rows to check them on.
_SAMPLE, _CHECKED = 256, 1000
#: How long an engine is timed in batches. Single rows are timed for a third as long.
TIMING_S = 1.0
# Without held-out rows, an engine's scores may differ from the model's own scores by this much.
_SAME_SCORE = 2e-3
# A number counts as another answer if it moves by more than this share of the target's standard deviation.
_SAME_NUMBER = 0.05


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

    own_metric: float | None = None
    rows: int = 0
    changed: int | None = None
    p_value: float | None = None
    conclusion: str = ""
    """What the check has shown, in a sentence; see `serve.engines.guard.Verdict` for it and the fields above."""

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
        return f"{self.name:<18} {'not chosen' if self.refused else 'chosen'}: {self.conclusion}"


class Benchmark:
    """Times and checks engines of one model, all on the same rows."""

    def __init__(
        self, predictor: Predictor, held_out: HeldOut | None, folder: Path, timing_s: float = TIMING_S
    ) -> None:
        """`folder` is the version's. Each engine is timed for `timing_s` seconds."""
        self.predictor, self._held_out, self._timing_s = predictor, held_out, timing_s
        columns = held_out.columns if held_out else predictor.parse(golden.load_requests(folder))
        # Random rows, because the rows of a file are often sorted by class or by length.
        rows = np.random.default_rng(0).permutation(len(next(iter(columns.values()))))[: _SAMPLE + _CHECKED]
        encoded = predictor.encode({role: [values[row] for row in rows] for role, values in columns.items()})
        # Check engines on other rows than they are built with. Golden rows serve for both: there are too few to split.
        n_sample = min(_SAMPLE, len(rows) // 2) if held_out else 0
        self.sample = encoded[: n_sample or _SAMPLE]
        self.checked, self._rows = encoded[n_sample:], rows[n_sample:]
        self._own_scores = predictor.scores(self.checked)

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

    def check(self, candidate: Candidate, engine: ForwardEngine, tolerance: float) -> Candidate:
        """Return a timed candidate with the verdict on its scores. `tolerance` is that of `serve.engines.guard.judge`."""
        batches = [self.checked[start : start + _BATCH] for start in range(0, len(self.checked), _BATCH)]
        logits = np.concatenate([engine.logits(batch) for batch in batches])
        scores = self.predictor.task.target.scores(self.predictor.contract.fitted, logits)
        return self.check_scores(candidate, scores, tolerance)

    def check_scores(self, candidate: Candidate, scores: np.ndarray, tolerance: float) -> Candidate:
        """Return a candidate with the verdict on its scores for the checked rows, float64 of shape (rows, outputs)."""
        difference = float(np.abs(scores - self._own_scores).max() / self._unit)
        rounded = round(difference, 6) if np.isfinite(difference) else None
        candidate = candidate._replace(largest_move=rounded, rows=len(scores))
        if not np.isfinite(difference):
            return candidate._replace(refused="its scores are not finite", conclusion="its scores are not finite")
        if self._held_out is None:
            return self._check_without_targets(
                candidate, difference, "there are no held-out rows to check the metric on"
            )
        if not np.isfinite(self._metric(self._own_scores)):
            missing = f"{self._held_out.metric} is not defined for the {len(scores):,} held-out rows to check it on"
            return self._check_without_targets(candidate, difference, missing)
        verdict = judge(
            self._own_scores,
            scores,
            self._changed(scores),
            self._metric,
            name=self._held_out.metric,
            higher_is_better=self._held_out.higher_is_better,
            tolerance=tolerance,
        )
        return candidate._replace(**verdict._asdict())

    def accept_native(self, candidate: Candidate) -> Candidate:
        """Return the candidate of the model itself, which always passes."""
        own_metric = self._metric(self._own_scores) if self._held_out else float("nan")
        metric = own_metric if np.isfinite(own_metric) else None
        return candidate._replace(
            metric=metric,
            own_metric=metric,
            largest_move=0.0,
            rows=len(self.checked),
            changed=0,
            conclusion="the model itself",
        )

    def _check_without_targets(self, candidate: Candidate, difference: float, missing: str) -> Candidate:
        """Return a candidate that is refused unless its scores are the model's own; `missing` says why."""
        facts = f"scores change by at most {difference:.4f}"
        if difference <= _SAME_SCORE:
            return candidate._replace(conclusion=f"{facts}: the same up to rounding")
        reason = f"{facts}, and {missing}"
        return candidate._replace(refused=reason, conclusion=reason)

    @property
    def _unit(self) -> float:
        return self.predictor.task.target.unit(self.predictor.contract.fitted)

    def _changed(self, scores: np.ndarray) -> np.ndarray:
        """Return for each checked row whether its answer differs from the model's own."""
        target, fitted = self.predictor.task.target, self.predictor.contract.fitted
        if not target.labels(fitted):
            changed: np.ndarray = np.abs(scores - self._own_scores).max(1) > _SAME_NUMBER * self._unit
            return changed
        own, theirs = (target.answer(fitted, values) for values in (self._own_scores, scores))
        # Tags are listed by score; another order is not another answer.
        return np.array(
            [
                sorted(target.labels_to_count(a)) != sorted(target.labels_to_count(b))
                for a, b in zip(own, theirs, strict=True)
            ]
        )

    def _metric(self, scores: np.ndarray) -> float:
        """Return the metric; NaN if it is not defined for the checked rows, whatever the scores are."""
        assert self._held_out is not None
        targets, bins = self._held_out.targets[self._rows], self._held_out.bins
        value = self.predictor.task.target.metric(self._held_out.metric, scores, targets, bins)
        return float("nan") if value is None else value

    def _rows_per_s(self, engine: ForwardEngine) -> float:
        """Return rows per second in batches. Use each batch's fastest time, so that other work on the machine does not
        count."""
        batches = [self.sample[start : start + _BATCH] for start in range(0, len(self.sample), _BATCH)]
        engine.logits(batches[0])
        fastest = [0.0] * len(batches)
        n_calls, began = 0, time.perf_counter()
        while time.perf_counter() - began < self._timing_s or not n_calls:
            index = n_calls % len(batches)
            started = time.perf_counter()
            engine.logits(batches[index])
            seconds = time.perf_counter() - started
            fastest[index] = min(fastest[index] or seconds, seconds)
            n_calls += 1
        return sum(len(batch) for batch, seconds in zip(batches, fastest, strict=True) if seconds) / sum(fastest)

    def _single_ms(self, engine: ForwardEngine) -> float:
        """Return the median milliseconds of a single row."""
        durations: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < self._timing_s / 3 or not durations:
            started = time.perf_counter()
            engine.logits([self.sample[len(durations) % len(self.sample)]])
            durations.append(time.perf_counter() - started)
        return float(np.median(durations)) * 1000
