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
from typing import Any

from filelock import FileLock

from cluster.errors import ModelError, SpecError, user_error_in
from cluster.files import new_folder
from serve.engines import catalog as engine_catalog
from serve.engines import engine_store
from serve.engines.base import Engine, EngineError, one_line
from serve.engines.benchmark import Candidate, HeldOut, _Measure
from trainer.inference.predictor import Predictor
from trainer.registry.registry import Version
from trainer.spec.run import Serve as ServeSpec

#: The task's own forward pass, which every model has.
NATIVE = "native"


# An engine must be this much faster than a simpler one before it.
_WORTH = 1.05


def engine_of(
    version: Version, spec: ServeSpec, held_out: Callable[[], HeldOut | None], say: Callable[[str], None] = print
) -> tuple[str, dict[str, Any] | None]:
    """Return the engine that `serve.engine` means for a version here, and its choice, measured now if it never was."""
    if spec.engine == NATIVE or not _is_here(spec):
        return NATIVE, None
    found = engine_store.choice_of(version, engine_store.hardware(*_place(spec)), spec.engine)
    if found is None or (spec.engine not in engine_catalog.NAMES and found["tolerance"] != spec.max_metric_drop):
        found = optimize(version, spec, held_out(), say)
    return found["engine"], found


def chosen_before(version: Version, spec: ServeSpec) -> tuple[str, dict[str, Any] | None]:
    """Return the engine that was chosen for a version on this hardware, with any tolerance; else the model's own."""
    found = (
        engine_store.choice_of(version, engine_store.hardware(*_place(spec)), spec.engine) if _is_here(spec) else None
    )
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
    place = engine_store.folder_of(version, engine_store.hardware(*_place(spec)))
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
    hardware = engine_store.hardware(device, threads)
    built = place / f"built-{uuid.uuid4().hex[:8]}"
    only: str | None = spec.engine if spec.engine in engine_catalog.NAMES else None
    speed = _speed_of_one if spec.engine == engine_catalog.AUTO_LATENCY else _speed
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
        "format": engine_store.FORMAT,
        "checkpoint": engine_store.checkpoint_digest(version),
        "hardware": hardware,
        "metric": held_out.metric if held_out else None,
        "tolerance": spec.max_metric_drop,
        "rows": len(measure.checked),
        "candidates": [candidate._asdict() for candidate in found],
        "folder": f"{built.name}/{chosen}",
        "built": engine_store.digests(built / chosen),
    }
    engine_store.keep(place, choice, spec.engine)
    return choice


def _place(spec: ServeSpec) -> tuple[str, int]:
    """Return device and threads of a replica."""
    return "cuda" if spec.gpus_per_replica > 0 else "cpu", max(1, int(spec.cpus_per_replica))


def load(predictor: Predictor, version: Version, name: str, choice: dict[str, Any] | None) -> Engine:
    """Return a version's engine, its files checked. Raises `ModelError` where it cannot be loaded."""
    place = engine_store.folder_of(version, choice["hardware"]) / choice["folder"] if choice else version.folder
    if choice:
        engine_store.must_be_as_built(place, choice["built"])
    try:
        return engine_catalog.load(name, predictor, place)
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
    return [name for name in engine_catalog.NAMES if name not in (NATIVE, "torch-compile")]


def _timed(name: str, predictor: Predictor, measure: _Measure, place: Path, scratch: Path) -> Candidate:
    """Build one engine and see how fast it is."""
    started = time.perf_counter()
    rows_per_s = single_ms = 0.0
    why = ""
    try:
        shutil.rmtree(place, ignore_errors=True)
        with new_folder(place) as folder:
            note = engine_catalog.build(name, predictor, measure.sample, folder, scratch)
        engine = engine_catalog.load(name, predictor, place)
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
        engine = engine_catalog.load(candidate.name, predictor, place / candidate.name)
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
