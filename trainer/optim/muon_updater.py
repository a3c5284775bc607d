"""The updater of `train.optimizer: muon`: Muon for the matrices of layers, AdamW for everything else.

Embeddings that are not tied to the output layer get sparse gradients and are updated by row, see
`trainer.optim.row_adam`. Workers sum one flat gradient and the rows of embeddings in a fixed order, and each takes the
whole step, so a run takes the same steps on any number of workers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any

import torch

from cluster.errors import SpecError
from trainer.optim import muon, row_adam
from trainer.optim.lr_schedule import lr_factor
from trainer.optim.optimizer import group_parameters, layer_matrices
from trainer.spec.train import TrainSpec


class MuonUpdater:
    """Implements `trainer.optim.updater.Updater`."""

    def __init__(
        self,
        model: torch.nn.Module,
        train: TrainSpec,
        n_steps: int,
        workers: int,
        new_parameters: Collection[str] = (),
    ) -> None:
        """Raises `SpecError` for a model without matrices in layers."""
        self._train, self._n_steps, self._workers = train, n_steps, workers
        self.values: dict[str, torch.Tensor] = {
            name: value for name, value in model.named_parameters() if value.requires_grad
        }
        self._groups = group_parameters(model, train, new_parameters)
        self._group_of = {id(value): group for group in self._groups for value in group["params"]}
        names = {id(value): name for name, value in self.values.items()}
        tables = _make_sparse(model)
        self._tables = {names[key]: row_adam.new_state(table.data) for key, table in tables.items()}
        matrices = layer_matrices(model) - self._tables.keys()
        if not matrices:
            raise SpecError(
                "train.optimizer=muon: the model has no matrices in layers that it knows by their names",
                "set `train.optimizer: adamw`",
            )
        self._matrices = {name: muon.new_state(self.values[name].data) for name in self.values if name in matrices}
        self._dense = [name for name in self.values if name not in self._tables]
        self._gradient = self._flat_gradient()
        self._adamw = torch.optim.AdamW(self._rest(), betas=(row_adam.BETA1, row_adam.BETA2), eps=row_adam.EPSILON)
        self._batches = self._same_matrices()
        self._matrix_ratio = (train.matrix_learning_rate or train.peak_learning_rate) / train.peak_learning_rate
        self._updates = 0

    def _flat_gradient(self) -> torch.Tensor:
        """Return the tensor in which autograd accumulates all dense gradients."""
        values = [self.values[name] for name in self._dense]
        flat = torch.zeros(sum(value.numel() for value in values), device=values[0].device)
        for value, part in zip(values, flat.split([value.numel() for value in values]), strict=True):
            value.grad = part.view(value.shape)
        return flat

    def _rest(self) -> list[dict[str, Any]]:
        """Return AdamW's groups: the parameters that are neither matrices of layers nor embeddings."""
        own = {id(self.values[name]) for name in (*self._matrices, *self._tables)}
        groups = [{**group, "params": [p for p in group["params"] if id(p) not in own]} for group in self._groups]
        return [group for group in groups if group["params"]]

    def _same_matrices(self) -> list[list[str]]:
        """Return the names of the matrices in lists of one shape and one group, each list in order."""
        batches: dict[Any, list[str]] = defaultdict(list)
        for name in self._matrices:
            value = self.values[name]
            batches[tuple(value.shape), id(self._group_of[id(value)])].append(name)
        return list(batches.values())

    # -- steps

    def set_learning_rates(self, step: int) -> None:
        share = lr_factor(self._train, step, self._n_steps)
        for group in (*self._groups, *self._adamw.param_groups):
            group["lr"] = group["peak"] * share

    def learning_rate_of(self, parameter: torch.Tensor) -> float:
        return float(self._group_of[id(parameter)]["lr"])

    def backward(self, loss_sum: torch.Tensor, divisor: int, *, more: bool) -> None:
        (loss_sum / divisor).backward()

    def update(self) -> torch.Tensor:
        with torch.no_grad():
            return self._update()

    def _update(self) -> torch.Tensor:
        if self._workers > 1:
            torch.distributed.all_reduce(self._gradient)  # all ranks
        rows = {name: row_adam.row_gradient(self.values[name], self._workers) for name in self._tables}  # all ranks
        squares = torch.dot(self._gradient, self._gradient)
        for gradient in rows.values():
            squares += gradient.values.square().sum()
        norm = squares.sqrt()
        scale = min(1.0, self._train.max_grad_norm / (float(norm) + 1e-6))
        self._gradient.mul_(scale)
        self._updates += 1
        self._step_matrices()
        self._adamw.step()
        for name, gradient in rows.items():
            table, part = self.values[name], gradient._replace(values=gradient.values * scale)
            row_adam.row_step(table, part, self._tables[name], self.learning_rate_of(table))
            table.grad = None
        self._gradient.zero_()
        return norm

    def _step_matrices(self) -> None:
        for names in self._batches:
            matrices = [self.values[name] for name in names]
            group = self._group_of[id(matrices[0])]
            gradients = [value.grad for value in matrices if value.grad is not None]
            states = [self._matrices[name] for name in names]
            rate = group["lr"] * self._matrix_ratio
            muon.muon_step(matrices, gradients, states, self._updates, rate, group["weight_decay"])

    def was_skipped(self) -> bool:
        return False

    def sync_model(self) -> None:
        pass  # `values` are the model's own parameters

    # -- state

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors = self._own_state()
        for name, value in self.values.items():
            tensors |= {f"{name}.{key}": part for key, part in self._adamw.state.get(value, {}).items()}
        return tensors, {"updates": self._updates}

    def _own_state(self) -> dict[str, torch.Tensor]:
        """Return the state of matrices and embeddings, which is not torch's, by `<parameter>.<key>`."""
        tensors: dict[str, torch.Tensor] = {}
        for name, matrix in self._matrices.items():
            tensors |= {f"{name}.{key}": value for key, value in matrix._asdict().items()}
        for name, table in self._tables.items():
            tensors |= {f"{name}.{key}": value for key, value in table._asdict().items()}
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        for path, value in self._own_state().items():
            value.copy_(tensors[path])
        names = {id(value): name for name, value in self.values.items()}
        for group in self._adamw.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                if f"{name}.step" in tensors:  # torch has no state for a parameter before its first step
                    self._adamw.state[parameter] = {
                        "step": tensors[f"{name}.step"].clone(),
                        "exp_avg": tensors[f"{name}.exp_avg"].to(parameter.device, copy=True),
                        "exp_avg_sq": tensors[f"{name}.exp_avg_sq"].to(parameter.device, copy=True),
                    }
        self._updates = int(others["updates"])


def _make_sparse(model: torch.nn.Module) -> dict[int, torch.Tensor]:
    """Let the embeddings whose weights nothing else uses have sparse gradients; return these weights by id."""
    # By id with all modules that use it: `named_parameters` would name a tied weight once.
    users = Counter(id(value) for module in model.modules() for value in module._parameters.values())
    tables: dict[int, torch.Tensor] = {}
    for module in model.modules():
        if type(module) is not torch.nn.Embedding or not module.weight.requires_grad:
            continue
        if users[id(module.weight)] == 1 and module.max_norm is None and not module.scale_grad_by_freq:
            module.sparse = True
            tables[id(module.weight)] = module.weight
    return tables
