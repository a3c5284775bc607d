"""Load models that write text: files verified, golden rows reproduced by the model and by the engine, the engine in its thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.errors import ModelError
from serve.engines.engine_store import checkpoint_digest
from serve.engines.generation.catalog import LoadSettings
from serve.engines.generation.version_engine import load_version_engine
from serve.generation.engine_thread import ThreadLimits
from serve.generation.generation_model import EngineHost, GenerationModel
from serve.generation.metrics import GenerationMetrics
from serve.model.settings import ModelSettings
from trainer.generation.engine import Engine, GenerationRequest, SamplingParams, complete_all
from trainer.generation.torch_engine import EngineOptions
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.registry import registry
from trainer.registry.registry import Version

# How far the mean log-probability of a golden row's tokens may move by an engine that computes in fp32, and in less.
_EXACT, _INEXACT = 2e-3, 0.2


def load_models(settings: Sequence[ModelSettings], metrics: GenerationMetrics) -> list[GenerationModel]:
    """Return the models, each with an engine of its own.

    Raises `ModelError` if a file's digest is wrong, if a golden row is not reproduced, or if an engine changes one.
    """
    return [load_model(each, metrics) for each in settings]


def load_model(settings: ModelSettings, metrics: GenerationMetrics) -> GenerationModel:
    """Return one model with its engine. Raises as `load_models` does."""
    version = Version(settings.name, settings.version, Path(settings.folder))
    registry.verify_files(version)
    predictor = Predictor(version.folder, device="cuda" if settings.on_gpu else "cpu", threads=settings.threads)
    golden_rows = golden.verify_golden(version.folder, predictor)
    inputs = predictor.encode(predictor.parse(golden.load_requests(version.folder)))
    sequences = [np.where(row < 0, ~row, row).tolist() for row in inputs]
    expected = _own_scores(predictor, sequences)
    engine = _make_engine(settings, version, predictor)
    _check_engine(settings, version, engine, sequences, expected)
    _warm_up(engine, sequences)
    identity = {
        "name": version.name,
        "version": version.number,
        "fingerprint": predictor.contract.fingerprint,
        "checkpoint": checkpoint_digest(version),
        "engine": settings.engine,
    }
    return GenerationModel(
        identity,
        EngineHost(engine, ThreadLimits(settings.slots, settings.max_queued)),
        predictor.encoder.rows,  # type: ignore[attr-defined]
        metrics,
        golden_rows=golden_rows,
        max_body_bytes=settings.max_body_bytes or predictor.task.max_body_bytes,
    )


def _own_scores(predictor: Predictor, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Return the mean log-probability of each sequence's tokens by the model's own forward pass."""
    if not sequences:
        return []
    # A sequence of which nothing is marked as learned is judged as a whole.
    scores = predictor.scores([~np.asarray(sequence, np.int32) for sequence in sequences])
    return [-float(row[0]) / max(1.0, float(row[1])) for row in scores]


def _make_engine(settings: ModelSettings, version: Version, predictor: Predictor) -> Engine:
    options = EngineOptions(slots=settings.slots, cache_tokens=settings.cache_tokens, max_length=settings.max_length)
    device = "cuda" if settings.on_gpu else "cpu"
    return load_version_engine(
        predictor, version, settings.engine, settings.choice, LoadSettings(options, device, settings.threads)
    )


def _check_engine(
    settings: ModelSettings,
    version: Version,
    engine: Engine,
    sequences: Sequence[Sequence[int]],
    expected: Sequence[float],
) -> None:
    """Raise `ModelError` if the engine gives the tokens of a golden row other probabilities than the model does."""
    long_enough = [(row, mean) for row, mean in zip(sequences, expected, strict=True) if len(row) > 1]
    allowed = _EXACT if settings.engine == "native" else _INEXACT
    scores = engine.score([row for row, _ in long_enough])
    for number, (score, (_, mean)) in enumerate(zip(scores, long_enough, strict=True)):
        difference = abs(float(np.mean(score)) - mean)
        if not difference <= allowed:  # written so that NaN fails too
            raise ModelError(
                f"engine {settings.engine} of {version.ref} gives golden row {number} a mean log-probability of "
                f"{float(np.mean(score)):.4f}, and the model itself gives {mean:.4f}",
                "set `serve.engine: native`",
            )


def _warm_up(engine: Engine, sequences: Sequence[Sequence[int]]) -> None:
    """Continue a few prompts, so that one-time work does not slow down the first requests."""
    prompts = [row[: max(1, min(len(row), engine.max_length - 4))] for row in sequences[:4]]
    params = SamplingParams(max_tokens=2, temperature=0.0)
    complete_all(engine, [GenerationRequest(f"warm-up-{index}", row, params) for index, row in enumerate(prompts)])
