"""Engines that are torch itself: the model as it was trained, in bf16, or compiled."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.engines.base import Engine, EngineError, split_by_length
from trainer.inference.predictor import Predictor
from trainer.optim.precision import autocast, has_fast_bf16

if TYPE_CHECKING:
    import torch


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> None:
    """Nothing is written: the checkpoint is all these need."""
    load(name, predictor, into)


def load(name: str, predictor: Predictor, built: Path) -> Engine:
    """Return the engine of that name."""
    if name == "native":
        return Native(predictor)
    import torch

    if not isinstance(predictor.model, torch.nn.Module):
        raise EngineError(f"{predictor.task.name} of this kind is no torch model")
    if name == "torch-bf16" and not has_fast_bf16(predictor.device, predictor.threads):
        raise EngineError("multiplying in bf16 is not faster on this hardware")
    if name == "torch-compile":
        return Torch(predictor, torch.compile(predictor.model, dynamic=True), bf16=False)
    return Torch(predictor, predictor.model, bf16=True)


class Native(Engine):
    """The task's own forward pass: what evaluation and batch prediction use."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        made = self._predictor
        return made.task.forward(made.model, made.contract, inputs, len(inputs), made.device)


class Torch(Engine):
    """A module that takes what the task's `collate` makes, in groups of like length."""

    def __init__(self, predictor: Predictor, module: Any, *, bf16: bool) -> None:
        self._predictor, self._module, self._bf16 = predictor, module, bf16

    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        import torch

        made = self._predictor
        groups = split_by_length([len(ids) for ids in inputs], self.call_tokens)
        use_threads_of(made)
        with torch.no_grad(), self._precision():
            parts = [self._group(made, [inputs[row] for row in rows]) for rows in groups]
        joined = torch.cat(parts).float().cpu().numpy()
        found = np.empty_like(joined)
        found[[row for rows in groups for row in rows]] = joined
        return found

    def _group(self, made: Predictor, inputs: list[np.ndarray]) -> torch.Tensor:
        batch = made.task.collate(made.contract, inputs)
        found: torch.Tensor = self._module(**{name: value.to(made.device) for name, value in batch.items()}).logits
        return found

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return autocast("bf16" if self._bf16 else "fp32", self._predictor.device)


def use_threads_of(predictor: Predictor) -> None:
    """Compute with the predictor's threads from now on: torch counts them for each thread that calls it."""
    import torch

    if torch.get_num_threads() != predictor.threads:
        torch.set_num_threads(predictor.threads)
