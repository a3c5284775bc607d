"""A checkpoint folder to predictions: the one path that evaluation, batch prediction and a replica share. No Ray.

Letters in shapes: B rows, C classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import RequestError
from trainer import contract as contracts
from trainer import tasks
from trainer.contract import Contract
from trainer.steps import Cleaner
from trainer.tasks.base import Task

if TYPE_CHECKING:
    import torch


class Predictor:
    """A trained model with its contract, loaded and ready. Raises `ModelError` if a file is missing or changed."""

    def __init__(self, folder: Path, *, device: str = "cpu", threads: int | None = None) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.contract = contracts.load(folder)
        self.task = tasks.get(self.contract.task)
        self.device = device
        self.cleaner = Cleaner(self.contract)
        self._encoder = self.task.encoder(self.contract, folder)
        self._model = self.task.load_model(folder).to(device).eval()

    def encode(self, raw: list[str]) -> list[np.ndarray]:
        """Return the model inputs of raw values: cleaned by the contract's steps, then encoded.

        Raises `RequestError` naming the first value that a step refuses.
        """
        if not self.cleaner:
            return self._encoder(raw)
        cleaned, reasons = self.cleaner(raw)
        for place, reason in enumerate(reasons):
            if reason:
                raise RequestError(422, "refused_input", f"inputs[{place}] cannot be used: {reason}")
        return self._encoder(cleaned)

    def embedding(self) -> np.ndarray:
        """Return the model's input embedding, shape (vocabulary, width)."""
        found: np.ndarray = self._model.get_input_embeddings().weight.detach().cpu().numpy()  # type: ignore[operator]
        return found

    def scores(self, inputs: list[np.ndarray], batch_size: int = 64) -> np.ndarray:
        """Return float64 probabilities, shape (B, C), of encoded inputs."""
        if not inputs:
            return np.empty((0, 0))
        return self.task.scores(forward(self.task, self._model, self.contract, inputs, batch_size, self.device))

    def predict(self, raw: list[str], batch_size: int = 64) -> list[dict[str, Any]]:
        """Return one answer for each raw value, as an HTTP client would get it."""
        return self._answers(self.encode(raw), batch_size)

    def answers(self, cleaned: list[str], batch_size: int = 64) -> list[dict[str, Any]]:
        """Return one answer for each value that went through the contract's steps already."""
        return self._answers(self._encoder(cleaned), batch_size)

    def _answers(self, inputs: list[np.ndarray], batch_size: int) -> list[dict[str, Any]]:
        return self.task.answer(self.contract, self.scores(inputs, batch_size)) if inputs else []


def forward(
    task: Task, model: torch.nn.Module, contract: Contract, inputs: list[np.ndarray], batch_size: int, device: str
) -> np.ndarray:
    """Return float32 logits, shape (rows, C), in the order of `inputs`; rows of like length share a batch."""
    import torch

    model.eval()
    order = np.argsort([-len(ids) for ids in inputs], kind="stable")
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = task.collate(contract, [inputs[at] for at in order[start : start + batch_size]])
            logits_BC = model(**{name: value.to(device) for name, value in batch.items()}).logits
            parts.append(logits_BC.float().cpu().numpy())
    if not parts:
        return np.empty((0, 0), dtype=np.float32)
    logits = np.concatenate(parts)
    unsorted = np.empty_like(logits)
    unsorted[order] = logits
    return unsorted
