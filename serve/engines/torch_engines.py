"""Engines that run in torch: the model as it was trained (`native`), in bf16, or compiled."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.engines.base import EngineError, ForwardEngine, split_by_length
from trainer.inference.predictor import Predictor
from trainer.optim.precision import autocast, has_fast_bf16

if TYPE_CHECKING:
    import torch


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> None:
    """Check that the engine can be loaded. Writes no files: the engine reads the checkpoint."""
    load(name, predictor, into)


def load(name: str, predictor: Predictor, built: Path) -> ForwardEngine:
    """Return the engine called `name`. Raises `EngineError` if the model or the hardware does not support it."""
    if name == "native":
        return NativeEngine(predictor)
    import torch

    if not isinstance(predictor.model, torch.nn.Module):
        raise EngineError(f"this model of {predictor.task.name} is not a torch model")
    if name == "torch-bf16" and not has_fast_bf16(predictor.device, predictor.threads):
        raise EngineError("multiplying in bf16 is not faster on this hardware")
    if name == "torch-compile":
        return GroupedTorchEngine(predictor, torch.compile(predictor.model, dynamic=True), bf16=False)
    return GroupedTorchEngine(predictor, predictor.model, bf16=True)


class NativeEngine(ForwardEngine):
    """The model's own forward pass, as the task defines it. Evaluation and batch prediction use it too."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        own = self._predictor
        return own.task.forward(own.model, own.contract, inputs, len(inputs), own.device)


class GroupedTorchEngine(ForwardEngine):
    """Runs a torch module on batches from the task's `collate`. Groups rows of similar length to save padding."""

    def __init__(self, predictor: Predictor, module: Any, *, bf16: bool) -> None:
        self._predictor, self._module, self._bf16 = predictor, module, bf16

    def logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        import torch

        groups = split_by_length([len(ids) for ids in inputs], self.call_tokens)
        set_threads(self._predictor.threads)
        with torch.no_grad(), self._precision():
            parts = [self._group_logits([inputs[row] for row in rows]) for rows in groups]
        joined = torch.cat(parts).float().cpu().numpy()
        logits = np.empty_like(joined)
        logits[[row for rows in groups for row in rows]] = joined
        return logits

    def _group_logits(self, inputs: list[np.ndarray]) -> torch.Tensor:
        batch = self._predictor.task.collate(self._predictor.contract, inputs)
        device = self._predictor.device
        logits: torch.Tensor = self._module(**{name: value.to(device) for name, value in batch.items()}).logits
        return logits

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return autocast("bf16" if self._bf16 else "fp32", self._predictor.device)


def set_threads(threads: int) -> None:
    """Make torch compute with `threads` threads. The setting holds for the calling thread only."""
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
