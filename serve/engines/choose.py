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
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from cluster.errors import ModelError, SpecError, user_error_in
from cluster.files import new_folder
from serve import engines
from serve.engines import store
from serve.engines.base import Engine, EngineError, one_line
from trainer import golden
from trainer.predictor import Predictor
from trainer.registry import Version
from trainer.spec import Serve as ServeSpec
from trainer.tasks.base import Columns

#: The task's own forward pass, which every model has.
NATIVE = "native"
# Batches of that many are what a busy replica computes.
_BATCH = 32
_SAMPLE, _FOR_METRIC = 256, 1000
_SECONDS = 1.0
# Without held-out rows to check on, scores may differ by this much from the model's own.
_SAME = 2e-3
# A metric is a quotient: three rows of a thousand fewer are 0.3 points, and not a bit more.
_ROUNDING = 1e-9
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


def engine_of(
    version: Version, spec: ServeSpec, held_out: Callable[[], HeldOut | None], say: Callable[[str], None] = print
) -> tuple[str, dict[str, Any] | None]:
    """Return the engine that `serve.engine` means for a version here, and its choice, measured now if it never was."""
    if spec.engine == NATIVE or not _is_here(spec):
        return NATIVE, None
    found = store.choice_of(version, store.hardware(*_place(spec)), spec.engine)
    if found is None or (spec.engine not in engines.NAMES and found["tolerance"] != spec.max_metric_drop):
        found = optimize(version, spec, held_out(), say)
    return found["engine"], found


def chosen_before(version: Version, spec: ServeSpec) -> tuple[str, dict[str, Any] | None]:
    """Return the engine that was chosen for a version on this hardware, with any tolerance; else the model's own."""
    found = store.choice_of(version, store.hardware(*_place(spec)), spec.engine) if _is_here(spec) else None
    return (found["engine"], found) if found else (NATIVE, None)


def _is_here(spec: ServeSpec) -> bool:
    """Whether this machine has what a replica computes on: engines are measured where they are chosen."""
    if not spec.gpus_per_replica:
        return True
    import torch

    return torch.cuda.is_available()


def optimize(
    version: Version,
    spec: ServeSpec,
    held_out: HeldOut | None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Build and measure engines of a version on this machine, and store the choice beside it. Returns the choice.

    Where `spec.engine` names one, a mistake in it is raised, and the metric decides nothing. Endpoints that run go on with
    the files they have: what is built gets a folder of its own, and those of the choice before stay.
    """
    place = store.folder_of(version, store.hardware(*_place(spec)))
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(str(place / ".lock")):
        return _optimize(version, spec, held_out, say, place)


def _optimize(
    version: Version,
    spec: ServeSpec,
    held_out: HeldOut | None,
    say: Callable[[str], None],
    place: Path,
) -> dict[str, Any]:
    device, threads = _place(spec)
    predictor = Predictor(version.folder, device=device, threads=threads)
    measure = _Measure(predictor, held_out, version.folder)
    hardware = store.hardware(device, threads)
    built = place / f"built-{uuid.uuid4().hex[:8]}"
    only: str | None = spec.engine if spec.engine in engines.NAMES else None
    speed = _speed_of_one if spec.engine == engines.AUTO_LATENCY else _speed
    names = [only] if only else [NATIVE, *_candidates(predictor, device)]
    found: list[Candidate] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            candidate = _timed(name, predictor, measure, built / name, Path(scratch))
            if only and candidate.refused:
                raise SpecError(f"serve.engine={name} cannot be used: {candidate.refused}", "take another, or `auto`")
            found.append(candidate)
            say(_told(candidate))
            gc.collect()
    found = _checked(found, speed, predictor, measure, built, spec.max_metric_drop, say)
    chosen = only or next(one.name for one in sorted(found, key=speed, reverse=True) if one.may_be_chosen)
    for name in set(names) - {chosen}:
        shutil.rmtree(built / name, ignore_errors=True)
    choice = {
        "engine": chosen,
        "asked": spec.engine,
        "format": store.FORMAT,
        "checkpoint": store.checkpoint_digest(version),
        "hardware": hardware,
        "metric": held_out.metric if held_out else None,
        "tolerance": spec.max_metric_drop,
        "rows": len(measure.checked),
        "candidates": [candidate._asdict() for candidate in found],
        "folder": f"{built.name}/{chosen}",
        "built": store.digests(built / chosen),
    }
    store.keep(place, choice, spec.engine)
    return choice


def _place(spec: ServeSpec) -> tuple[str, int]:
    """Return device and threads of a replica."""
    return "cuda" if spec.gpus_per_replica > 0 else "cpu", max(1, int(spec.cpus_per_replica))


def load(predictor: Predictor, version: Version, name: str, choice: dict[str, Any] | None) -> Engine:
    """Return a version's engine, its files checked. Raises `ModelError` where it cannot be loaded."""
    place = store.folder_of(version, choice["hardware"]) / choice["folder"] if choice else version.folder
    if choice:
        store.must_be_as_built(place, choice["built"])
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
    return [name for name in engines.NAMES if name not in (NATIVE, "torch-compile")]


def _timed(name: str, predictor: Predictor, measure: _Measure, place: Path, scratch: Path) -> Candidate:
    """Build one engine and see how fast it is."""
    started = time.perf_counter()
    rows_per_s = single_ms = 0.0
    why = ""
    try:
        shutil.rmtree(place, ignore_errors=True)
        with new_folder(place) as folder:
            note = engines.build(name, predictor, measure.sample, folder, scratch)
        engine = engines.load(name, predictor, place)
        build_s = time.perf_counter() - started
        rows_per_s, single_ms = measure.speed(engine)
        return Candidate(name, round(rows_per_s, 1), round(single_ms, 3), round(build_s, 2), note=note)
    except EngineError as error:
        why = str(error)
    except Exception as error:  # of a library that cannot do what this model needs
        mistake = user_error_in(error)
        if mistake is not None:
            raise mistake from error
        why = one_line(error)
    return Candidate(name, 0.0, 0.0, round(time.perf_counter() - started, 2), why)


def _checked(
    found: list[Candidate],
    speed: Callable[[Candidate], float],
    predictor: Predictor,
    measure: _Measure,
    place: Path,
    tolerance: float,
    say: Callable[[str], None],
) -> list[Candidate]:
    """Return the candidates, the fastest of them checked until one is good enough; the model itself always is."""
    own = measure.own()
    checked = {}
    for candidate in sorted(found, key=speed, reverse=True):
        if candidate.refused:
            continue
        engine = engines.load(candidate.name, predictor, place / candidate.name)
        move, metric = (0.0, own) if candidate.name == NATIVE else measure.checks(engine)
        refused = "" if candidate.name == NATIVE else measure.refusal(move, metric, own, tolerance)
        judged = candidate._replace(metric=metric, largest_move=round(move, 6), refused=refused)
        checked[candidate.name] = judged
        say(_judged(judged))
        if judged.may_be_chosen:
            break
    return [checked.get(candidate.name, candidate) for candidate in found]


def _speed(candidate: Candidate) -> float:
    """Return rows a second; of two that are about as fast the simpler one is meant to come first."""
    return candidate.rows_per_s * (_WORTH if candidate.name == NATIVE else 1.0)


def _speed_of_one(candidate: Candidate) -> float:
    """Return how many single rows a second would be; one that was not timed comes last."""
    return 1 / candidate.single_ms * (_WORTH if candidate.name == NATIVE else 1.0) if candidate.single_ms else 0.0


def _told(candidate: Candidate) -> str:
    if not candidate.rows_per_s:
        return f"{candidate.name:<18} left out: {candidate.refused}"
    told = f"{candidate.name:<18} {candidate.rows_per_s:7,.0f} rows/s in batches   one in {candidate.single_ms:.2f} ms"
    return f"{told}   ({candidate.note})" if candidate.note else told


def _judged(candidate: Candidate) -> str:
    value = "" if candidate.metric is None else f", metric {candidate.metric:.4f}"
    end = f"not chosen: {candidate.refused}" if candidate.refused else "chosen"
    return f"{candidate.name:<18} a score moves by {candidate.largest_move:.4f} at most{value}: {end}"


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
