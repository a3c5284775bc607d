"""One model version in a replica: its files verified, with its engine and its batcher. Without Ray or HTTP."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from cluster.errors import ModelError, RequestError
from serve.engines.choose import load_chosen_engine
from serve.engines.engine_store import checkpoint_digest
from serve.model.batcher import Batcher, BatchLimits
from serve.model.body import check_input_count, parse_body
from serve.model.metrics import ModelMetrics, ReplicaMetrics
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.registry import registry
from trainer.registry.registry import Version
from trainer.tasks.roles import input_roles

# An engine's scores on golden rows may differ from the model's own scores by this factor times the measured difference.
_SLACK = 2.0
_UNLIMITED = 1 << 62


class ModelSettings(BaseModel):
    """A replica's settings for one model: plain values, so that a Serve config file can hold them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    version: int
    folder: str
    engine: str = "native"
    choice: dict[str, Any] | None = None
    """The stored choice of `serve.engines.choose`."""
    threads: int = 1
    on_gpu: bool = False
    max_batch_size: int = 32
    max_batch_tokens: int = 8192
    max_inputs: int = 256
    max_body_bytes: int = 1 << 20
    max_queued: int = 1000
    overlong: str = "truncate"


class ServedModel:
    """A model that is ready to answer requests.

    The constructor raises `ModelError` if a file's digest is wrong or a golden row is not reproduced.
    """

    def __init__(self, settings: ModelSettings, metrics: ReplicaMetrics) -> None:
        self.settings = settings
        version = Version(settings.name, settings.version, Path(settings.folder))
        registry.verify_files(version)
        device = "cuda" if settings.on_gpu else "cpu"
        self.predictor = Predictor(version.folder, device=device, threads=settings.threads)
        self.task, self.contract = self.predictor.task, self.predictor.contract
        self.roles = input_roles(self.task, self.contract)
        self.golden_rows = golden.verify_golden(version.folder, self.predictor)
        self._engine = load_chosen_engine(self.predictor, version, settings.engine, settings.choice)
        rows = self.predictor.encode(self.predictor.parse(golden.load_requests(version.folder)))
        self._check_engine(version, rows)
        if self._engine.owns_weights:
            self.predictor.model = None
        self.identity = {
            "name": version.name,
            "version": version.number,
            "fingerprint": self.contract.fingerprint,
            "checkpoint": checkpoint_digest(version),
            "engine": settings.engine,
        }
        """The value of the key `model` in every response."""
        self.metrics = ModelMetrics(metrics, self.identity, lambda: self.batcher.waiting)
        self._warm_up(rows)
        max_tokens = settings.max_batch_tokens if self.task.token_input else _UNLIMITED
        limits = BatchLimits(settings.max_batch_size, max_tokens, settings.max_queued)
        self.batcher = Batcher(self, limits, self.metrics.count_batch)

    def _warm_up(self, rows: list[np.ndarray]) -> None:
        """Compute batches of common sizes, so that one-time work does not slow down the first requests."""
        for size in {1, 2, self.settings.max_batch_size // 4, self.settings.max_batch_size} if rows else ():
            self._engine.logits((rows * (size // len(rows) + 1))[: max(1, size)])

    def _check_engine(self, version: Version, rows: list[np.ndarray]) -> None:
        """Raise `ModelError` if the engine's scores on golden rows are too far from the model's own scores.

        The limit is `_SLACK` times the largest difference that was measured when the engine was chosen.
        """
        measured = {entry["name"]: entry for entry in (self.settings.choice or {}).get("candidates", [])}
        if self.settings.engine not in measured or not rows:
            return
        unit = self.task.target.unit(self.contract.fitted)
        difference = float(np.abs(self.compute(rows) - self.predictor.scores(rows)).max() / unit)
        allowed = _SLACK * max(measured[self.settings.engine]["largest_move"] or 0.0, 1e-3)
        if not difference <= allowed:  # written so that NaN fails too
            raise ModelError(
                f"engine {self.settings.engine} of {version.ref} changes a golden row's score by {difference:.4f}; "
                f"when it was measured, scores changed by at most {allowed / _SLACK:.4f}",
                "measure again with `raymill optimize`, or set `serve.engine: native`",
            )

    # -- the `BatchModel` protocol

    def prepare(self, raw: Sequence[Any]) -> list[np.ndarray | RequestError]:
        """Return the model input of each row from `parse_inputs`, or an error for a row that cannot be used."""
        columns = dict(zip(self.roles, map(list, zip(*raw, strict=True)), strict=True))
        encoded = self.predictor.encode_with_reasons(columns)
        if not encoded.reasons or not any(encoded.reasons):
            return [self._check_length(ids, row) for ids, row in zip(encoded.inputs, raw, strict=True)]
        usable = [row for row, reason in zip(raw, encoded.reasons, strict=True) if not reason]
        prepared = iter(self.prepare(usable) if usable else [])
        return [_cleaning_error(reason) if reason else next(prepared) for reason in encoded.reasons]

    def _check_length(self, ids: np.ndarray, row: Sequence[Any]) -> np.ndarray | RequestError:
        if self.settings.overlong == "truncate":
            return ids
        max_length = self.task.max_length(self.contract)
        if max_length is None or len(ids) < max_length:
            return ids
        length = self.predictor.encoder.length(row)
        if length <= max_length:
            return ids
        return RequestError(422, "too_long", f"has {length} tokens; the model reads at most {max_length}")

    def compute(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return float64 scores, shape (B, C)."""
        return self.task.target.scores(self.contract.fitted, self._engine.logits(inputs))

    def format_answers(self, scores: np.ndarray) -> list[dict[str, Any]]:
        """Return one JSON object for each row of scores."""
        return self.task.target.answer(self.contract.fitted, scores)

    # -- requests

    def parse_body(self, body: bytes, content_type: str) -> list[Any]:
        """Return the inputs in a request's body. Raises `RequestError` if the body is not valid."""
        inputs = self.task.body_inputs(self.contract, body, content_type) if content_type else None
        if inputs is None:
            return parse_body(body, self.settings.max_inputs)
        return check_input_count(inputs, self.settings.max_inputs)

    def parse_inputs(self, inputs: Sequence[Any]) -> list[Any]:
        """Return each input's raw values in the order of `roles`. Raises `RequestError` for the first invalid input."""
        columns = self.predictor.parse(inputs)
        return list(zip(*[columns[role] for role in self.roles], strict=True))

    def labels_to_count(self, answers: Sequence[dict[str, Any]]) -> list[list[str]]:
        """Return the labels under which each answer is counted."""
        return [self.task.target.labels_to_count(answer) for answer in answers]

    @functools.cached_property
    def example(self) -> dict[str, Any]:
        """An `input` and an `answer` for the documentation."""
        return {"input": self.task.example(self.contract), "answer": self.task.target.example(self.contract.fitted)}


def _cleaning_error(reason: str) -> RequestError:
    return RequestError(422, "refused_input", f"cannot be used: {reason}")
