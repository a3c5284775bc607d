"""The updater with torch's own optimizers: for GPUs, for sharded weights, and for fp16 with its scaled loss."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from trainer.optim.distributed.parallel import full_tensor, shard_like
from trainer.optim.lr_schedule import lr_factor
from trainer.optim.optimizer import build_optimizer
from trainer.optim.precision import Precision, build_loss_scaler
from trainer.spec.train import TrainSpec

_SCALER = "scaler"


class TorchUpdater:
    """Implements `trainer.optim.updater.Updater` with a torch optimizer and a gradient scaler."""

    def __init__(
        self,
        model: torch.nn.Module,
        train: TrainSpec,
        n_steps: int,
        workers: int,
        precision: Precision,
        device_type: str,
        new_parameters: Collection[str] = (),
    ) -> None:
        self._model, self._train, self._n_steps, self._workers = model, train, n_steps, workers
        self._optimizer = build_optimizer(model, train, new_parameters)
        self._scaler = build_loss_scaler(precision, device_type)
        self._skipped = False
        self.values: dict[str, torch.Tensor] = {
            name: value for name, value in model.named_parameters() if value.requires_grad
        }

    def set_learning_rates(self, step: int) -> None:
        share = lr_factor(self._train, step, self._n_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * share

    def learning_rate_of(self, parameter: torch.Tensor) -> float:
        groups = self._optimizer.param_groups
        return float(next(g["lr"] for g in groups if any(value is parameter for value in g["params"])))

    def backward(self, loss_sum: torch.Tensor, divisor: int, *, more: bool) -> None:
        # DDP and FSDP average gradients over workers, but the loss of a step is a sum over all workers.
        self._scaler.scale(loss_sum * (self._workers / divisor)).backward()

    def update(self) -> torch.Tensor | None:
        self._scaler.unscale_(self._optimizer)
        norm = full_tensor(torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._train.max_grad_norm))
        scaled = self._scaler.is_enabled()
        self._skipped = scaled and not bool(torch.isfinite(norm))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return None if scaled else norm

    def was_skipped(self) -> bool:
        return self._skipped

    def sync_model(self) -> None:
        pass  # `values` are the model's own parameters

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors: dict[str, torch.Tensor] = {}
        others: dict[str, Any] = {_SCALER: self._scaler.state_dict()}
        for name, parameter in self.values.items():
            for key, value in self._optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{name}.{key}"] = value
                else:
                    others[f"{name}.{key}"] = value
        return tensors, others

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        by_name: dict[str, dict[str, Any]] = {}
        for path, value in [*tensors.items(), *others.items()]:
            name, _, key = path.rpartition(".")  # the keys of an optimizer's state hold no dots
            by_name.setdefault(name, {})[key] = value
        for name, parameter in self.values.items():
            if name in by_name:  # torch has no state for a parameter that never had a gradient
                self._optimizer.state[parameter] = {
                    key: _shard_state(value, parameter) if isinstance(value, torch.Tensor) else value
                    for key, value in by_name[name].items()
                }
        self._scaler.load_state_dict(others.get(_SCALER, {}))


def _shard_state(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return this worker's part of a state tensor: sharded like its parameter, or all of it if it is a step counter."""
    return shard_like(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)
