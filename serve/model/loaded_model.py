"""One model version in memory with one engine: its files verified, the golden rows reproduced, the engine warm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ModelError, RequestError
from serve.engines.choose import load_chosen_engine
from serve.engines.engine_store import checkpoint_digest
from serve.model.settings import ModelSettings
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.registry import registry
from trainer.registry.registry import Version
from trainer.tasks.roles import input_roles

# An engine's scores on golden rows may differ from the model's own scores by this factor times the measured difference.
_SLACK = 2.0


class LoadedModel:
    """A model with its engine, ready to compute batches: a `serve.model.batcher.BatchModel`.

    The constructor raises `ModelError` if a file's digest is wrong, if a golden row is not reproduced, or if the engine
    changes a golden row more than it did when it was measured.
    """

    def __init__(self, settings: ModelSettings) -> None:
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
        self.on_unseen: Callable[[Mapping[str, int]], None] = lambda unseen: None
        """Called with `Encoded.unseen` of all inputs of requests."""
        self._warm_up(rows)

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

    def prepare(self, raw: Sequence[Any]) -> list[np.ndarray | RequestError]:
        """Return the model input of each row of raw values, or an error for a row that cannot be used.

        A row has the values of one input in the order of `roles`.
        """
        columns = dict(zip(self.roles, map(list, zip(*raw, strict=True)), strict=True))
        encoded = self.predictor.encode_with_reasons(columns)
        if not encoded.reasons or not any(encoded.reasons):
            self.on_unseen(encoded.unseen)
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


def _cleaning_error(reason: str) -> RequestError:
    return RequestError(422, "refused_input", f"cannot be used: {reason}")
