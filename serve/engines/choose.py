"""Choose the fastest engine on this hardware that keeps the metric.

Engines are timed on inputs like those of a replica: batches of held-out rows of mixed lengths, and single rows. Then
they are checked, the fastest first, by `evaluate.metric` on the held-out rows that the version was registered with. If
these rows are gone, the golden rows replace them, and the scores must equal the model's own scores up to rounding.
"""

from __future__ import annotations

import gc
import importlib
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import ModelError, SpecError
from cluster.locks import file_lock
from serve.engines import engine_store
from serve.engines.base import EngineError, ForwardEngine
from serve.engines.benchmark import TIMING_S, Benchmark, Candidate, HeldOut
from serve.engines.catalog import AUTO_LATENCY, ENGINE_NAMES, NATIVE, load_engine
from serve.engines.selection import SelectedEngine, current_engine, device_and_threads, hardware_of, service_of
from trainer.inference.predictor import Predictor
from trainer.registry.registry import Version
from trainer.spec.serve import ServeSpec

# An engine is preferred to the model's own forward pass only if it is faster by this factor.
_WORTH = 1.05
_SCRATCH_PREFIX = ".scratch-"
#: How a task is served (`RequestOptions.service`) -> the module that measures its engines.
_MEASURES = {"answers": "serve.engines.choose", "generation": "serve.engines.generation.choose"}

Speed = Callable[[Candidate], float]
Say = Callable[[str], None]


def select_engine(
    version: Version, spec: ServeSpec, held_out: Callable[[], HeldOut | None], say: Say = print
) -> SelectedEngine:
    """Return the engine that `serve.engine` means for a version on this machine.

    Measures the engines first if no choice is stored for this hardware.
    """
    current = current_engine(version, spec)
    if current is not None:
        return current
    choice = optimize_engine(version, spec, held_out(), say)
    return SelectedEngine(choice["engine"], choice)


def load_chosen_engine(
    predictor: Predictor, version: Version, name: str, choice: dict[str, Any] | None
) -> ForwardEngine:
    """Return a version's engine after checking its files. Raises `ModelError` if it cannot be loaded."""
    folder = engine_store.engine_folder(version, choice["hardware"]) / choice["folder"] if choice else version.folder
    if choice:
        engine_store.check_built_files(folder, choice["built"])
    try:
        return load_engine(name, predictor, folder)
    except EngineError as error:
        raise ModelError(
            f"engine {name} of {version.ref} cannot be loaded: {error}", "set `serve.engine: native`"
        ) from error


def optimize_engine(
    version: Version, spec: ServeSpec, held_out: HeldOut | None, say: Say = print, *, timing_s: float | None = None
) -> dict[str, Any]:
    """Build and measure engines of a version on this machine, store the choice beside the version and return it.

    Each engine is timed for `timing_s` seconds; None: as long as its kind needs.

    If `spec.engine` names one engine, that engine is chosen whatever its metric is; raises `SpecError` if it cannot be
    used. Running endpoints keep their files: each call builds into a new folder and keeps that of the previous choice.
    """
    folder = engine_store.engine_folder(version, hardware_of(spec))
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / ".lock"):
        for left in folder.glob(f"{_SCRATCH_PREFIX}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        built = folder / f"built-{uuid.uuid4().hex[:8]}"
        measure = importlib.import_module(_MEASURES[service_of(version)]).measure_engines
        try:
            choice: dict[str, Any] = measure(version, spec, held_out, say, built, timing_s)
            return choice
        except BaseException:  # an interrupt, too
            shutil.rmtree(built, ignore_errors=True)
            raise


def measure_engines(
    version: Version, spec: ServeSpec, held_out: HeldOut | None, say: Say, built: Path, timing_s: float | None
) -> dict[str, Any]:
    """Build and measure engines into the folder `built`, store the choice beside it and return it."""
    device, threads = device_and_threads(spec)
    predictor = Predictor(version.folder, device=device, threads=threads)
    benchmark = Benchmark(predictor, held_out, version.folder, timing_s or TIMING_S)
    names = [spec.engine] if spec.engine in ENGINE_NAMES else [NATIVE, *_candidate_names(predictor, device)]
    speed = _single_row_speed if spec.engine == AUTO_LATENCY else _batch_speed
    candidates = _time_candidates(names, benchmark, built, spec, say)
    candidates = _check_fastest(candidates, speed, benchmark, built, spec.max_metric_drop, say)
    chosen = spec.engine if spec.engine in ENGINE_NAMES else _fastest_eligible(candidates, speed)
    for name in set(names) - {chosen}:
        shutil.rmtree(built / name, ignore_errors=True)
    choice = {
        "engine": chosen,
        "service": "answers",
        "asked": spec.engine,
        "format": engine_store.FORMAT,
        "checkpoint": engine_store.checkpoint_digest(version),
        "hardware": engine_store.detect_hardware(device, threads),
        "metric": held_out.metric if held_out else None,
        "tolerance": spec.max_metric_drop,
        "rows": len(benchmark.checked),
        "candidates": [candidate._asdict() for candidate in candidates],
        "folder": f"{built.name}/{chosen}",
        "built": engine_store.file_digests(built / chosen),
    }
    engine_store.save_choice(built.parent, choice, spec.engine)
    return choice


def _candidate_names(predictor: Predictor, device: str) -> list[str]:
    """Return the engines to compare with the model's own forward pass."""
    if device == "cuda":
        return ["torch-bf16", "onnx-fp32"]
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(predictor.model, torch.nn.Module):  # torch is loaded if the model is its own
        return []
    return [name for name in ENGINE_NAMES if name not in (NATIVE, "torch-compile")]


def _time_candidates(
    names: Sequence[str], benchmark: Benchmark, built: Path, spec: ServeSpec, say: Say
) -> list[Candidate]:
    """Build and time each engine. Raises `SpecError` if the engine named in the spec cannot be built."""
    candidates = []
    with tempfile.TemporaryDirectory(dir=built.parent, prefix=_SCRATCH_PREFIX) as scratch:
        for name in names:
            candidate = benchmark.build_and_time(name, built / name, Path(scratch))
            if candidate.refused and name == spec.engine:
                raise SpecError(
                    f"serve.engine={name} cannot be used: {candidate.refused}",
                    "set `serve.engine` to another engine, or to `auto`",
                )
            candidates.append(candidate)
            say(candidate.timing_line)
            gc.collect()
    return candidates


def _check_fastest(
    candidates: list[Candidate], speed: Speed, benchmark: Benchmark, built: Path, tolerance: float, say: Say
) -> list[Candidate]:
    """Check the candidates, the fastest first, until one keeps the metric; the model's own forward pass always does."""
    checked = {}
    for candidate in sorted(candidates, key=speed, reverse=True):
        if candidate.refused:
            continue
        result = _check(candidate, benchmark, built, tolerance)
        checked[candidate.name] = result
        say(result.check_line)
        if result.is_eligible:
            break
    return [checked.get(candidate.name, candidate) for candidate in candidates]


def _check(candidate: Candidate, benchmark: Benchmark, built: Path, tolerance: float) -> Candidate:
    """Return a candidate with the verdict on its scores."""
    if candidate.name == NATIVE:
        return benchmark.accept_native(candidate)
    engine = load_engine(candidate.name, benchmark.predictor, built / candidate.name)
    return benchmark.check(candidate, engine, tolerance)


def _fastest_eligible(candidates: list[Candidate], speed: Speed) -> str:
    return next(item.name for item in sorted(candidates, key=speed, reverse=True) if item.is_eligible)


def _batch_speed(candidate: Candidate) -> float:
    """Return rows per second in batches. The native engine's are multiplied by `_WORTH`: others must be that much
    faster."""
    return candidate.rows_per_s * (_WORTH if candidate.name == NATIVE else 1.0)


def _single_row_speed(candidate: Candidate) -> float:
    """Return single rows per second, with the same bonus for the native engine. Without a time, returns 0."""
    return 1 / candidate.single_ms * (_WORTH if candidate.name == NATIVE else 1.0) if candidate.single_ms else 0.0
