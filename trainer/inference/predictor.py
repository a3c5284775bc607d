"""Predict with the model in a checkpoint folder. Evaluation, batch prediction and replicas use this; it needs no Ray.

Letters in shapes: B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import RequestError
from trainer.contract.contract import load_contract
from trainer.spec.answers import AnswersSpec
from trainer.steps.cleaner import Cleaner
from trainer.targets.answers.base import Answered
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.encoder import Columns, Encoded

#: The most tokens of an answer unless the caller says otherwise.
MAX_TOKENS = 256


class Predictor:
    """A trained model with its contract, loaded and ready. Raises `ModelError` if a file is missing or changed."""

    def __init__(
        self, folder: Path, *, device: str = "cpu", threads: int = 1, limits: AnswersSpec | None = None
    ) -> None:
        """`limits` are those of answers that a model writes."""
        self.folder = folder
        self.contract = load_contract(folder)
        self.task = task_of_contract(self.contract)
        self.device, self.threads = device, threads
        self._limits = limits or AnswersSpec(max_tokens=MAX_TOKENS)
        self.cleaner = Cleaner(self.contract)
        self.encoder = self.task.encoder(self.contract, folder)
        self.model = self.task.to_device(self.task.load_model(folder), device, threads)

    def parse(self, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        """Return the raw values of a request's inputs by role. Raises `RequestError` naming the first invalid input."""
        return self.task.parse(self.contract, inputs)

    def clean(self, columns: Columns) -> tuple[dict[str, Sequence[Any]], list[str | None]]:
        """Return the values after the contract's steps and, for each row, why it cannot be used, or None."""
        return self.cleaner.columns(columns, self.task.text_roles)

    def encode_with_reasons(self, columns: Columns) -> Encoded:
        """Return the model inputs of raw values, cleaned by the contract's steps, and the reason for each bad row.

        If a step rejects any row, no row is encoded.
        """
        cleaned, reasons = self.clean(columns)
        if any(reasons):
            return Encoded([np.empty(0)] * len(reasons), reasons)
        return self.encoder(cleaned)

    def encode(self, columns: Columns) -> list[np.ndarray]:
        """Return the model inputs of raw values. Raises `RequestError` naming the first rejected row."""
        encoded = self.encode_with_reasons(columns)
        _raise_first(encoded.reasons or ())
        return encoded.inputs

    def scores(self, inputs: list[np.ndarray], batch_size: int = 64) -> np.ndarray:
        """Return float64 scores, shape (B, C), of encoded inputs."""
        if not inputs:
            return np.empty((0, self.task.target.width(self.contract.fitted)))
        logits = self.task.forward(self.model, self.contract, inputs, batch_size, self.device)
        return self.task.target.scores(self.contract.fitted, logits)

    def answers(self, inputs: list[np.ndarray], batch_size: int = 64) -> list[dict[str, Any]]:
        """Return one answer for each encoded input."""
        if inputs and self._completer is not None:
            return self._completer(inputs)
        return self.task.target.answer(self.contract.fitted, self.scores(inputs, batch_size)) if inputs else []

    @cached_property
    def _completer(self) -> Callable[[Sequence[np.ndarray]], list[dict[str, Any]]] | None:
        return self.task.completer(self.model, self.contract, self.folder, self._limits)

    def write_answers(
        self, inputs: Sequence[np.ndarray], spec: AnswersSpec, on_progress: Callable[[int], None]
    ) -> list[list[Answered]]:
        """Return the answers that the model writes to the prompts of encoded rows; see `Task.write_answers`."""
        return self.task.write_answers(self.model, self.contract, self.folder, inputs, spec, on_progress)

    def predict(self, inputs: Sequence[Any], batch_size: int = 64) -> list[dict[str, Any]]:
        """Return the answer to each input. Inputs and answers have the form of the HTTP API."""
        return self.answers(self.encode(self.parse(inputs)), batch_size) if len(inputs) else []


def _raise_first(reasons: Sequence[str | None]) -> None:
    for index, reason in enumerate(reasons):
        if reason:
            raise RequestError(422, "refused_input", f"inputs[{index}] cannot be used: {reason}")
