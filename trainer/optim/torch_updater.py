"""torch's own optimisers: on GPUs, for sharded weights, and where the loss is scaled for fp16."""

from __future__ import annotations

from typing import Any

import torch

from trainer.optim.distributed.parallel import like, whole
from trainer.optim.lr_schedule import factor
from trainer.optim.optimizer import optimizer
from trainer.optim.precision import Precision, loss_scaler
from trainer.spec.train import Train

_SCALER = "scaler"


class TorchUpdater:
    """See `trainer.optim.updater.Updater`."""

    def __init__(
        self, model: torch.nn.Module, train: Train, n_steps: int, workers: int, precision: Precision, device_type: str
    ) -> None:
        self._model, self._train, self._n_steps, self._workers = model, train, n_steps, workers
        self._optimizer = optimizer(model, train)
        self._scaler = loss_scaler(precision, device_type)
        self._left_out = False
        self.values: dict[str, torch.Tensor] = {
            name: value for name, value in model.named_parameters() if value.requires_grad
        }

    def set_rates(self, step: int) -> None:
        share = factor(self._train, step, self._n_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * share

    def rate_of(self, parameter: torch.Tensor) -> float:
        groups = self._optimizer.param_groups
        return float(next(g["lr"] for g in groups if any(value is parameter for value in g["params"])))

    def backward(self, loss_sum: torch.Tensor, rows: int, *, more: bool) -> None:
        # DDP and FSDP average over workers; the loss of a step is the mean over all its rows, however they were shared out.
        self._scaler.scale(loss_sum * (self._workers / rows)).backward()

    def update(self) -> torch.Tensor | None:
        self._scaler.unscale_(self._optimizer)
        norm = whole(torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._train.max_grad_norm))
        scaled = self._scaler.is_enabled()
        self._left_out = scaled and not bool(torch.isfinite(norm))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return None if scaled else norm

    def was_left_out(self) -> bool:
        return self._left_out

    def publish(self) -> None:
        pass  # the model has the values themselves

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors: dict[str, torch.Tensor] = {}
        others: dict[str, Any] = {_SCALER: self._scaler.state_dict()}
        for name, parameter in self.values.items():
            for key, value in self._optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{name}.{key}"] = whole(value)  # all ranks
                else:
                    others[f"{name}.{key}"] = value
        return tensors, others

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        by_name: dict[str, dict[str, Any]] = {}
        for full, value in [*tensors.items(), *others.items()]:
            name, _, key = full.rpartition(".")  # the keys of an optimiser's state hold no dots
            by_name.setdefault(name, {})[key] = value
        for name, parameter in self.values.items():
            if name in by_name:  # torch keeps nothing of a parameter that never got a gradient
                self._optimizer.state[parameter] = {
                    key: _placed(value, parameter) if isinstance(value, torch.Tensor) else value
                    for key, value in by_name[name].items()
                }
        self._scaler.load_state_dict(others.get(_SCALER, {}))


def _placed(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return a tensor of a parameter's state where it belongs: a count of steps is one number on every worker, all else has
    the parameter's own parts."""
    return like(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)
