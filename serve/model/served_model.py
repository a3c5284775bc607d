"""One model version in a replica: verified, loaded with its engine, and behind its batches. No Ray, no HTTP."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from cluster.errors import ModelError, RequestError
from serve.engines import choose, engine_store
from serve.model import body as request_body
from serve.model.batcher import Batcher, Limits
from serve.model.metrics import ModelMetrics, ReplicaMetrics
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.registry import registry
from trainer.registry.registry import Version

# By how much more than when it was measured an engine's score may move from the model's own on golden rows.
_SLACK = 2.0


class ModelSettings(BaseModel):
    """What a replica is told of one model: plain values, so that a Serve config file can hold them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    version: int
    folder: str
    engine: str = "native"
    choice: dict[str, Any] | None = None
    """What `serve.engines.choose` found out about it."""
    threads: int = 1
    on_gpu: bool = False
    max_batch_size: int = 32
    max_batch_tokens: int = 8192
    max_inputs: int = 256
    max_body_bytes: int = 1 << 20
    max_queued: int = 1000
    too_long: str = "truncate"


class Served:
    """Ready only after every file's digest and all golden rows were found right."""

    def __init__(self, settings: ModelSettings, metrics: ReplicaMetrics) -> None:
        self.settings = settings
        version = Version(settings.name, settings.version, Path(settings.folder))
        registry.verify(version)
        device = "cuda" if settings.on_gpu else "cpu"
        self.predictor = Predictor(version.folder, device=device, threads=settings.threads)
        self.task, self.contract = self.predictor.task, self.predictor.contract
        self.roles = self.task.subjects(self.contract)
        self.golden_rows = golden.replay(version.folder, self.predictor)
        self._engine = choose.load(self.predictor, version, settings.engine, settings.choice)
        rows = self.predictor.encode(self.predictor.parse(golden.requests(version.folder)))
        self._must_agree(version, rows)
        if self._engine.keeps_its_own_weights:
            self.predictor.model = None
        self.model = {
            "name": version.name,
            "version": version.number,
            "fingerprint": self.contract.fingerprint,
            "checkpoint": engine_store.checkpoint_digest(version),
            "engine": settings.engine,
        }
        self.metrics = ModelMetrics(metrics, self.model, lambda: self.batcher.waiting)
        self._warm_up(rows)
        tokens = settings.max_batch_tokens if self.task.token_input else 1 << 62
        limits = Limits(settings.max_batch_size, tokens, settings.max_queued)
        self.batcher = Batcher(self, limits, self.metrics.batch)

    def _warm_up(self, rows: list[np.ndarray]) -> None:
        """Compute batches of the sizes that will come, so that no request pays for what is made the first time."""
        for size in {1, 2, self.settings.max_batch_size // 4, self.settings.max_batch_size} if rows else ():
            self._engine.logits((rows * (size // len(rows) + 1))[: max(1, size)])

    def _must_agree(self, version: Version, rows: list[np.ndarray]) -> None:
        """Raise `ModelError` where the engine does not compute what it did when it was measured."""
        measured = {one["name"]: one for one in (self.settings.choice or {}).get("candidates", [])}
        if self.settings.engine not in measured or not rows:
            return
        unit = self.task.target.unit(self.contract.fitted)
        moved = float(np.abs(self.compute(rows) - self.predictor.scores(rows)).max() / unit)
        allowed = _SLACK * max(measured[self.settings.engine]["largest_move"] or 0.0, 1e-3)
        if not moved <= allowed:
            raise ModelError(
                f"engine {self.settings.engine} of {version.ref} moves a golden row's score by {moved:.4f}, "
                f"and did by {allowed / _SLACK:.4f} at most when it was measured",
                "measure again with `raymill optimize`, or serve with engine=native",
            )

    # -- what `Batcher` asks

    def prepare(self, raw: Sequence[Any]) -> list[np.ndarray | RequestError]:
        """Return the model inputs of rows as `rows_of` returns them, or why one cannot be used."""
        columns = dict(zip(self.roles, map(list, zip(*raw, strict=True)), strict=True))
        found = self.predictor.prepared(columns)
        if not found.reasons or not any(found.reasons):
            return [self._of_length(ids, row) for ids, row in zip(found.inputs, raw, strict=True)]
        good = [row for row, reason in zip(raw, found.reasons, strict=True) if not reason]
        made = iter(self.prepare(good) if good else [])
        return [_refusal(reason) if reason else next(made) for reason in found.reasons]

    def _of_length(self, ids: np.ndarray, row: Sequence[Any]) -> np.ndarray | RequestError:
        if self.settings.too_long == "truncate":
            return ids
        most = self.task.longest(self.contract)
        if most is None or len(ids) < most:
            return ids
        whole = self.predictor.encoder.length(row)
        if whole <= most:
            return ids
        return RequestError(422, "too_long", f"has {whole} tokens; at most {most} are read")

    def compute(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return float64 scores, shape (B, C)."""
        return self.task.target.scores(self.contract.fitted, self._engine.logits(inputs))

    def answers(self, scores: np.ndarray) -> list[dict[str, Any]]:
        """Return one JSON object for each row of scores."""
        return self.task.target.answer(self.contract.fitted, scores)

    # -- requests

    def read(self, body: bytes, content_type: str) -> list[Any]:
        """Return the inputs of a request's body. Raises `RequestError`."""
        found = self.task.body_inputs(self.contract, body, content_type) if content_type else None
        if found is None:
            return request_body.parse(body, self.settings.max_inputs)
        return request_body.limited(found, self.settings.max_inputs)

    def rows_of(self, inputs: Sequence[Any]) -> list[Any]:
        """Return the raw values of each input, by role. Raises `RequestError` naming the first wrong one."""
        columns = self.predictor.parse(inputs)
        return list(zip(*[columns[role] for role in self.roles], strict=True))

    def labels_of(self, answers: Sequence[dict[str, Any]]) -> list[list[str]]:
        """Return the labels that answers are counted by."""
        return [self.task.target.counted(answer) for answer in answers]

    @functools.cached_property
    def example(self) -> dict[str, Any]:
        """Return an input and an answer, as documentation shows them."""
        return {"input": self.task.example(self.contract), "answer": self.task.target.example(self.contract.fitted)}


def _refusal(reason: str) -> RequestError:
    return RequestError(422, "refused_input", f"cannot be used: {reason}")
