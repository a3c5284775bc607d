"""The fastest engine on this hardware that keeps the metric: candidates are built, timed, and held against held-out rows.

What is timed is what a replica will be given: batches of held-out rows of mixed lengths, and single ones. What is checked is
`evaluate.metric` on the rows that the version was registered with; where these are not there, golden rows stand in for them,
and only an engine whose scores are the model's own up to rounding may be chosen.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.errors import ModelError, SpecError, UserError, user_error_in
from cluster.files import new_folder, write_json
from serve import engines
from serve.engines import store
from serve.engines.base import Engine, EngineError
from trainer import golden
from trainer.predictor import Predictor
from trainer.registry import Version
from trainer.spec import Serve as ServeSpec
from trainer.tasks.base import Columns

# Batches of that many are what a busy replica computes.
_BATCH = 32
_SAMPLE, _FOR_METRIC = 256, 2000
_SECONDS = 0.5
# Without held-out rows to check on, scores may differ by this much from the model's own.
_SAME = 2e-3
# An engine must be this much faster than a simpler one before it.
_WORTH = 1.05


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
    metric: float | None
    largest_move: float
    """Of a score, from the model's own."""
    refused: str
    """Why it cannot be chosen; empty if it can."""
    build_s: float


def engine_of(
    version: Version, spec: ServeSpec, held_out: Callable[[], HeldOut | None], say: Callable[[str], None] = print
) -> tuple[str, dict[str, Any] | None]:
    """Return the engine that `serve.engine` means for a version here, and its choice, measured now if it never was."""
    if spec.engine == "native":
        return "native", None
    found = store.choice_of(version, store.hardware(*_place(spec)))
    if spec.engine == "auto":
        if found is None or found["only"] or found["tolerance"] != spec.max_metric_drop:
            found = optimize(version, spec, held_out(), say)
        return found["engine"], found
    if found is None or spec.engine not in found["built"]:
        found = optimize(version, spec, held_out(), say, only=spec.engine)
    return spec.engine, found


def was_chosen(version: Version, spec: ServeSpec) -> bool:
    """Whether the engine of a version was chosen on this hardware before."""
    found = store.choice_of(version, store.hardware(*_place(spec)))
    return found is not None and not found["only"]


def optimize(
    version: Version,
    spec: ServeSpec,
    held_out: HeldOut | None,
    say: Callable[[str], None] = print,
    only: str | None = None,
) -> dict[str, Any]:
    """Build and measure engines of a version on this machine, and store the choice beside it. Returns the choice.

    `only` is one that the user named: a mistake in it is raised, and the metric decides nothing.
    """
    device, threads = _place(spec)
    predictor = Predictor(version.folder, device=device, threads=threads)
    measure = _Measure(predictor, held_out, version.folder)
    hardware = store.hardware(device, threads)
    place = store.folder_of(version, hardware)
    names = [only] if only else ["native", *_candidates(predictor, device)]
    found: list[Candidate] = []
    built: dict[str, dict[str, str]] = {}
    scratch = tempfile.TemporaryDirectory()
    for name in names:
        own = found[0] if found else None
        candidate = _tried(name, predictor, measure, place / name, Path(scratch.name), own, spec.max_metric_drop)
        if only and not candidate.rows_per_s:
            raise SpecError(f"serve.engine={name} cannot be used: {candidate.refused}", "take another, or `auto`")
        found.append(candidate)
        built[name] = store.digests(place / name)
        say(_told(candidate, held_out.metric if held_out else ""))
        gc.collect()
    scratch.cleanup()
    chosen = only or _fastest(found).name
    for name in set(built) - {chosen}:
        shutil.rmtree(place / name, ignore_errors=True)
    choice = {
        "engine": chosen,
        "only": only,
        "checkpoint": store.checkpoint_digest(version),
        "hardware": hardware,
        "metric": held_out.metric if held_out else None,
        "tolerance": spec.max_metric_drop,
        "rows": len(measure.checked),
        "candidates": [candidate._asdict() for candidate in found],
        "built": {chosen: built[chosen]},
    }
    write_json(place / store.CHOICE, choice)
    return choice


def _place(spec: ServeSpec) -> tuple[str, int]:
    """Return device and threads of a replica."""
    return "cuda" if spec.gpus_per_replica > 0 else "cpu", max(1, int(spec.cpus_per_replica))


def load(predictor: Predictor, version: Version, name: str, choice: dict[str, Any] | None) -> Engine:
    """Return a version's engine, its files checked. Raises `ModelError` where it cannot be loaded."""
    place = store.folder_of(version, choice["hardware"]) / name if choice else version.folder
    if choice:
        store.must_be_as_built(place, choice["built"][name])
    try:
        return engines.load(name, predictor, place)
    except EngineError as error:
        raise ModelError(
            f"engine {name} of {version.ref} cannot be loaded: {error}", "serve with engine=native"
        ) from error


def _candidates(predictor: Predictor, device: str) -> list[str]:
    if device == "cuda":
        return ["torch-bf16", "onnx-fp32"]
    import torch

    if not isinstance(predictor.model, torch.nn.Module):
        return []
    return [name for name in engines.NAMES if name not in ("native", "torch-compile")]


def _tried(
    name: str,
    predictor: Predictor,
    measure: _Measure,
    place: Path,
    scratch: Path,
    own: Candidate | None,
    tolerance: float,
) -> Candidate:
    """Build and measure one engine; `own` is what the model itself does."""
    started = time.perf_counter()
    try:
        shutil.rmtree(place, ignore_errors=True)
        with new_folder(place) as folder:
            engines.build(name, predictor, measure.sample, folder, scratch)
        engine = engines.load(name, predictor, place)
        build_s = time.perf_counter() - started
        move, metric = measure.checks(engine)
        rows_per_s, single_ms = measure.speed(engine)
    except EngineError as error:
        return Candidate(name, 0.0, 0.0, None, 0.0, str(error), round(time.perf_counter() - started, 2))
    except Exception as error:  # of a library that cannot do what this model needs
        mistake = user_error_in(error)
        if isinstance(mistake, UserError):
            raise mistake from error
        said = str(error).strip().splitlines()[0][:160] if str(error).strip() else ""
        return Candidate(
            name, 0.0, 0.0, None, 0.0, f"{type(error).__name__}: {said}", round(time.perf_counter() - started, 2)
        )
    refused = measure.refusal(move, metric, own, tolerance)
    return Candidate(
        name, round(rows_per_s, 1), round(single_ms, 3), metric, round(move, 6), refused, round(build_s, 2)
    )


def _fastest(found: list[Candidate]) -> Candidate:
    best = found[0]
    for candidate in found[1:]:
        if not candidate.refused and candidate.rows_per_s > _WORTH * best.rows_per_s:
            best = candidate
    return best


def _told(candidate: Candidate, metric: str) -> str:
    if candidate.rows_per_s == 0:
        return f"{candidate.name:<14} left out: {candidate.refused}"
    value = f"{metric} {candidate.metric:.4f}  " if candidate.metric is not None else ""
    return (
        f"{candidate.name:<14} {candidate.rows_per_s:7,.0f} rows/s  one {candidate.single_ms:6.2f} ms  {value}"
        f"largest move of a score {candidate.largest_move:.4f}{'  not chosen: ' + candidate.refused if candidate.refused else ''}"
    )


class _Measure:
    """The rows that engines are timed and checked with."""

    def __init__(self, predictor: Predictor, held_out: HeldOut | None, folder: Path) -> None:
        self._predictor, self._held_out = predictor, held_out
        columns = held_out.columns if held_out else predictor.parse(golden.requests(folder))
        # Rows at random: those of a file often lie by class, or by length.
        self._rows = np.random.default_rng(0).permutation(len(next(iter(columns.values()))))[:_FOR_METRIC]
        self.checked = predictor.encode({role: [values[at] for at in self._rows] for role, values in columns.items()})
        self._own = predictor.scores(self.checked)
        self.sample = self.checked[:_SAMPLE]

    def checks(self, engine: Engine) -> tuple[float, float | None]:
        """Return how far a score moves at most from the model's own, and the metric where rows have targets."""
        target, fitted = self._predictor.task.target, self._predictor.contract.fitted
        parts = [engine.logits(self.checked[at : at + _BATCH]) for at in range(0, len(self.checked), _BATCH)]
        scores = target.scores(fitted, np.concatenate(parts))
        move = float(np.abs(scores - self._own).max() / target.unit(fitted))
        if self._held_out is None:
            return move, None
        figures = target.metrics(scores, self._held_out.targets[self._rows], self._held_out.bins)
        return move, figures.get(self._held_out.metric)

    def speed(self, engine: Engine) -> tuple[float, float]:
        """Return rows a second in batches, and the median milliseconds of one row."""
        batches = [self.sample[at : at + _BATCH] for at in range(0, len(self.sample), _BATCH)]
        engine.logits(batches[0])
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < _SECONDS:
            batch = batches[done % len(batches)]
            engine.logits(batch)
            done += 1
        rows_per_s = done * _BATCH / (time.perf_counter() - started) * (len(batches[0]) / _BATCH)
        took: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < _SECONDS / 2 or not took:
            started = time.perf_counter()
            engine.logits([self.sample[len(took) % len(self.sample)]])
            took.append(time.perf_counter() - started)
        return rows_per_s, float(np.median(took)) * 1000

    def refusal(self, move: float, metric: float | None, own: Candidate | None, tolerance: float) -> str:
        """Return why an engine may not be chosen, or ""."""
        if not np.isfinite(move):
            return "its scores are no numbers"
        if own is None:
            return ""
        if self._held_out is None or metric is None or own.metric is None:
            return (
                "" if move <= _SAME else f"a score moves by {move:.4f}, and there are no held-out rows to check it on"
            )
        higher = self._held_out.higher_is_better
        gain = metric - own.metric if higher else own.metric - metric
        allowed = tolerance / 100 * (1.0 if higher else abs(own.metric))
        return "" if gain >= -allowed else f"{self._held_out.metric} moves from {own.metric:.4f} to {metric:.4f}"
