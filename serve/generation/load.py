"""Load a model that writes text: files verified, golden rows reproduced by the model and by its engine, the engine warm."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.errors import ModelError
from serve.engines import engine_store
from serve.engines.generation.catalog import LoadSettings
from serve.engines.generation.version_engine import load_version_engine
from serve.generation.engine_thread import ThreadLimits
from serve.generation.generation_model import EngineHost, GenerationModel
from serve.generation.metrics import GenerationMetrics
from serve.model.settings import ModelSettings
from trainer.generation.engine import Engine, GenerationRequest, SamplingParams, complete_all
from trainer.generation.grammar import object_grammar
from trainer.generation.torch_engine import EngineOptions
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.registry import registry
from trainer.registry.registry import Version

# How far the mean log-probability of a golden row's tokens may move by an engine that computes in fp32, and in less.
_EXACT, _INEXACT = 2e-3, 0.2
_NATIVE = "native"


class VerifiedModel(NamedTuple):
    """A version whose files and golden rows are as they were when it was registered."""

    settings: ModelSettings
    version: Version
    predictor: Predictor
    golden_rows: int
    sequences: list[list[int]]
    """The tokens of the golden rows that have several."""
    expected: list[float]
    """The mean log-probability of their tokens by the model's own forward pass."""

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version, fingerprint, checkpoint and engine."""
        return {
            "name": self.version.name,
            "version": self.version.number,
            "fingerprint": self.predictor.contract.fingerprint,
            "checkpoint": engine_store.checkpoint_digest(self.version),
            "engine": self.settings.engine,
        }


def verify_model(settings: ModelSettings) -> VerifiedModel:
    """Return a version. Raises `ModelError` if a file's digest is wrong or a golden row is not reproduced."""
    version = Version(settings.name, settings.version, Path(settings.folder))
    registry.verify_files(version)
    predictor = Predictor(version.folder, device="cuda" if settings.on_gpu else "cpu", threads=settings.threads)
    golden_rows = golden.verify_golden(version.folder, predictor)
    inputs = predictor.encode(predictor.parse(golden.load_requests(version.folder)))
    sequences = [np.where(row < 0, ~row, row).tolist() for row in inputs if len(row) > 1]
    return VerifiedModel(settings, version, predictor, golden_rows, sequences, mean_logprobs(predictor, sequences))


def mean_logprobs(predictor: Predictor, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Return the mean log-probability of each sequence's tokens by the model's own forward pass."""
    if not sequences:
        return []
    # A sequence of which nothing is marked as learned is judged as a whole.
    scores = predictor.scores([~np.asarray(sequence, np.int32) for sequence in sequences])
    return [-float(row[0]) / max(1.0, float(row[1])) for row in scores]


def load_model(settings: ModelSettings, metrics: GenerationMetrics) -> GenerationModel:
    """Return one model with an engine of its own. Raises `ModelError` as `verify_model` and `check_engine` do."""
    verified = verify_model(settings)
    host = EngineHost(make_own_engine(verified), ThreadLimits(settings.slots, settings.max_queued))
    return make_model(verified, host, metrics)


def make_own_engine(verified: VerifiedModel) -> Engine:
    """Return the engine that a version's settings name, checked and warm. Raises `ModelError`."""
    settings, version = verified.settings, verified.version
    options = EngineOptions(slots=settings.slots, cache_tokens=settings.cache_tokens, max_length=settings.max_length)
    load = LoadSettings(options, "cuda" if settings.on_gpu else "cpu", settings.threads)
    engine = load_version_engine(verified.predictor, version, settings.engine, settings.choice, load)
    check_engine(verified, engine)
    warm_up(engine, verified.sequences)
    return engine


def make_model(
    verified: VerifiedModel,
    host: EngineHost,
    metrics: GenerationMetrics,
    *,
    adapter: str | None = None,
    base_name: str | None = None,
) -> GenerationModel:
    """Return the model of a version whose engine, or whose adapter, `host` has."""
    task = verified.predictor.task
    return GenerationModel(
        verified.identity,
        host,
        verified.predictor.encoder.rows,  # type: ignore[attr-defined]
        metrics,
        adapter=adapter,
        base_name=base_name,
        golden_rows=verified.golden_rows,
        max_body_bytes=verified.settings.max_body_bytes or task.max_body_bytes,
    )


def check_engine(verified: VerifiedModel, engine: Any, adapter: str | None = None) -> None:
    """Raise `ModelError` if the engine gives the tokens of a golden row other probabilities than the model does."""
    engine_name = verified.settings.engine
    allowed = _EXACT if engine_name == _NATIVE else _INEXACT
    more = {"adapter": adapter} if adapter is not None else {}
    for number, (score, mean) in enumerate(
        zip(engine.score(verified.sequences, **more), verified.expected, strict=True)
    ):
        computed = float(np.mean(score))
        if not abs(computed - mean) <= allowed:  # written so that NaN fails too
            raise ModelError(
                f"engine {engine_name} of {verified.version.ref} gives golden row {number} a mean log-probability of "
                f"{computed:.4f}, and the model itself gives {mean:.4f}",
                "set `serve.engine: native`",
            )


def warm_up(engine: Engine, sequences: Sequence[Sequence[int]]) -> None:
    """Continue a few prompts, one by a grammar, so that one-time work does not slow down the first requests."""
    prompts = [row[: max(1, min(len(row), engine.max_length - 4))] for row in sequences[:4]]
    plain = SamplingParams(max_tokens=2, temperature=0.0)
    constrained = SamplingParams(max_tokens=2, temperature=0.0, grammar=object_grammar())
    requests = [GenerationRequest(f"warm-up-{index}", row, plain) for index, row in enumerate(prompts)]
    if importlib.util.find_spec("llguidance") is not None:
        requests += [GenerationRequest("warm-up-grammar", row, constrained) for row in prompts[:1]]
    complete_all(engine, requests)
