"""A checkpoint folder to predictions: the one path that evaluation, batch prediction and a replica share. No Ray.

Letters in shapes: B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import RequestError
from trainer.contract import contract as contracts
from trainer.steps.cleaner import Cleaner
from trainer.tasks import catalog as task_catalog
from trainer.tasks.encoder import Columns, Encoded

if TYPE_CHECKING:
    pass


class Predictor:
    """A trained model with its contract, loaded and ready. Raises `ModelError` if a file is missing or changed."""

    def __init__(self, folder: Path, *, device: str = "cpu", threads: int = 1) -> None:
        self.contract = contracts.load(folder)
        self.task = task_catalog.of(self.contract)
        self.device, self.threads = device, threads
        self.cleaner = Cleaner(self.contract)
        self.encoder = self.task.encoder(self.contract, folder)
        self.model = self.task.to_device(self.task.load_model(folder), device, threads)

    def parse(self, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        """Return the raw values by role of inputs as a request has them; raises `RequestError` naming the first wrong one."""
        return self.task.parse(self.contract, inputs)

    def clean(self, columns: Columns) -> tuple[dict[str, Sequence[Any]], list[str | None]]:
        """Return the values after the contract's steps, and for each row why it cannot be used, or None."""
        return self.cleaner.columns(columns, self.task.texts)

    def prepared(self, columns: Columns) -> Encoded:
        """Return the model inputs of raw values, cleaned by the contract's steps, then encoded, with reasons against rows.

        Nothing is encoded while a step refuses a row.
        """
        cleaned, reasons = self.clean(columns)
        if any(reasons):
            return Encoded([np.empty(0)] * len(reasons), reasons)
        return self.encoder(cleaned)

    def encode(self, columns: Columns) -> list[np.ndarray]:
        """Return the model inputs of raw values, as `prepared` makes them.

        Raises `RequestError` naming the first row that a step or the encoder refuses.
        """
        found = self.prepared(columns)
        _refuse_first(found.reasons or ())
        return found.inputs

    def scores(self, inputs: list[np.ndarray], batch_size: int = 64) -> np.ndarray:
        """Return float64 scores, shape (B, C), of encoded inputs."""
        if not inputs:
            return np.empty((0, self.task.target.width(self.contract.fitted)))
        logits = self.task.forward(self.model, self.contract, inputs, batch_size, self.device)
        return self.task.target.scores(self.contract.fitted, logits)

    def answers(self, inputs: list[np.ndarray], batch_size: int = 64) -> list[dict[str, Any]]:
        """Return one answer for each encoded input."""
        return self.task.target.answer(self.contract.fitted, self.scores(inputs, batch_size)) if inputs else []

    def predict(self, inputs: Sequence[Any], batch_size: int = 64) -> list[dict[str, Any]]:
        """Return one answer for each input, as an HTTP client would send and get it."""
        return self.answers(self.encode(self.parse(inputs)), batch_size) if len(inputs) else []


def _refuse_first(reasons: Sequence[str | None]) -> None:
    for place, reason in enumerate(reasons):
        if reason:
            raise RequestError(422, "refused_input", f"inputs[{place}] cannot be used: {reason}")
