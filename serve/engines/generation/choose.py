"""Choose the fastest engine for a model that continues texts, among those that give held-out tokens the same probabilities.

All engines are timed with 1, 8 and 32 answers at a time. `auto` takes the one that is fastest with the most answers at a
time, `auto-latency` the one that is fastest with one.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import SpecError
from serve.engines import engine_store
from serve.engines.benchmark import HeldOut
from serve.engines.catalog import AUTO_LATENCY
from serve.engines.generation.catalog import GENERATION_ENGINES, NATIVE, LoadOwn, LoadSettings, candidate_names
from serve.engines.generation.held_out import HeldOutTexts
from serve.engines.generation.measure import METRIC, EngineMeasurement, GenerationCandidate
from serve.engines.generation.throughput import STREAMS
from serve.engines.selection import device_and_threads
from serve.engines.torch_engines import set_threads
from trainer.chat.rules import CHAT_STEP, ChatRules
from trainer.export.transformers_folder import write_transformers_folder
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.registry.registry import Version
from trainer.spec.serve import ServeSpec

# Another engine is preferred to the model's own only if it is faster by this factor.
_WORTH = 1.05
#: Seconds that an engine is timed at each number of answers.
TIMING_S = 4.0
_SCRATCH_PREFIX = ".scratch-"


def measure_engines(
    version: Version,
    spec: ServeSpec,
    held_out: HeldOut | None,
    say: Callable[[str], None],
    built: Path,
    timing_s: float | None = None,
) -> dict[str, Any]:
    """Build and measure the engines of a version into the folder `built`, store the choice beside it and return it.

    If `spec.engine` names one engine, that engine is chosen whatever its probabilities are. Raises `SpecError` if it
    cannot be used.
    """
    device, threads = device_and_threads(spec)
    predictor = Predictor(version.folder, device=device, threads=threads)
    settings = load_settings(spec)
    columns = held_out.columns if held_out else predictor.parse(golden.load_requests(version.folder))
    texts = HeldOutTexts(predictor.encode(columns), settings.options.cache_tokens // settings.options.slots)
    named = spec.engine if spec.engine in GENERATION_ENGINES else None
    names = list(dict.fromkeys([NATIVE, named])) if named else candidate_names(device)
    candidates: list[GenerationCandidate] = []
    with tempfile.TemporaryDirectory(dir=built.parent, prefix=_SCRATCH_PREFIX) as scratch:
        write_transformers_folder(version.folder, Path(scratch))
        measurement = EngineMeasurement(
            Path(scratch), texts, own_engine(predictor, settings), settings, timing_s or TIMING_S
        )
        for name in names:
            candidate = measurement.measure(name, built / name, spec.max_metric_drop)
            say(candidate.timing_line)
            if candidate.tokens_per_s and name != NATIVE:
                say(candidate.check_line)
            candidates.append(candidate)
    chosen = _choose(candidates, spec.engine, named)
    for name in set(names) - {chosen}:
        shutil.rmtree(built / name, ignore_errors=True)
    choice = {
        "engine": chosen,
        "service": "generation",
        "asked": spec.engine,
        "format": engine_store.FORMAT,
        "checkpoint": engine_store.checkpoint_digest(version),
        "hardware": engine_store.detect_hardware(device, threads),
        "metric": METRIC,
        "tolerance": spec.max_metric_drop,
        "rows": texts.n_positions,
        "candidates": [candidate._asdict() for candidate in candidates],
        "folder": f"{built.name}/{chosen}",
        "built": engine_store.file_digests(built / chosen),
    }
    engine_store.save_choice(built.parent, choice, spec.engine)
    return choice


def load_settings(spec: ServeSpec) -> LoadSettings:
    """Return the sizes, the device and the threads of a replica's engine."""
    from trainer.generation.torch_engine import EngineOptions

    device, threads = device_and_threads(spec)
    sizes = spec.generation
    options = EngineOptions(slots=sizes.slots, cache_tokens=sizes.cache_tokens, max_length=sizes.max_length)
    return LoadSettings(options, device, threads)


def own_engine(predictor: Predictor, settings: LoadSettings) -> LoadOwn:
    """Return the function that makes the engine of the predictor's model."""
    from trainer.generation.load import make_engine

    rules = ChatRules.model_validate(predictor.contract.step_params(CHAT_STEP))

    def load_own(is_int8: bool) -> Any:
        set_threads(settings.threads)
        # Weights in int8 replace a model's own.
        model = copy.deepcopy(predictor.model) if is_int8 else predictor.model
        tokenizer = predictor.encoder.rows.tokenizer  # type: ignore[attr-defined]
        return make_engine(model, tokenizer, eos_ids=rules.stop_ids, options=settings.options, int8=is_int8)

    return load_own


def _choose(candidates: list[GenerationCandidate], asked: str, named: str | None) -> str:
    """Return the fastest engine that may be chosen, or the one that the spec names."""
    if named:
        candidate = next(each for each in candidates if each.name == named)
        if not candidate.tokens_per_s:
            raise SpecError(
                f"serve.engine={named} cannot be used: {candidate.refused}",
                "set `serve.engine` to another engine, or to `auto`",
            )
        return named
    streams = str(STREAMS[0] if asked == AUTO_LATENCY else STREAMS[-1])

    def speed(candidate: GenerationCandidate) -> float:
        return candidate.tokens_per_s[streams] * (_WORTH if candidate.name == NATIVE else 1.0)

    return max((each for each in candidates if each.is_eligible), key=speed).name
