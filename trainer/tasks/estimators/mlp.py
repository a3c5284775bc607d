"""A small network for tables in torch: embeddings for columns of ids, saved as safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.optim import batch_plan
from trainer.tasks.estimators import params
from trainer.tasks.estimators.base import Estimator, Goal, Means, Table

if TYPE_CHECKING:
    import torch

# The default of `train.learning_rate` is for fine-tuning; a new network would hardly move.
_LEARNING_RATE = 2e-3
_ROWS_AT_ONCE = 8192


class Mlp(Estimator):
    """Fully connected layers; an epoch is one pass over the rows."""

    kind = "mlp"
    file = "model.safetensors"
    params_type = params.Mlp
    has_epochs = True
    backend = "torch"

    def fit(self, table: Table, goal: Goal, means: Means) -> Iterator[None]:
        """Learn by AdamW; several workers share each step, whose loss is the mean over all its rows."""
        import torch

        from trainer.optim.distributed.parallel import distributed
        from trainer.optim.lr_schedule import factor
        from trainer.optim.optimizer import optimizer

        train = means.train
        if "learning_rate" not in train.model_fields_set:
            train = train.model_copy(update={"learning_rate": _LEARNING_RATE})
        torch.manual_seed(train.seed)
        self._made(table.values.shape[1], table.sizes, goal.n_classes)
        self.to(means.device, means.threads)
        torch.manual_seed(train.seed + means.rank)  # workers drop out different units
        stepped = distributed(self._network, means.device, means.workers)
        steps = train.epochs * batch_plan.steps_per_epoch(len(table), train.batch_size)
        by_gradient = optimizer(self._network, train)
        values, ids, y = (torch.from_numpy(part).to(means.device) for part in (table.values, table.ids, goal.y))
        weights = None if goal.weights is None else torch.from_numpy(goal.weights).to(means.device)
        same_length = np.zeros(len(table), np.int32)
        done = 0
        for epoch in range(1, train.epochs + 1):
            self._network.train()
            for rows in batch_plan.plan(same_length, train.seed, epoch, train.batch_size):
                for group in by_gradient.param_groups:
                    group["lr"] = group["peak"] * factor(train, done, steps)
                done += 1
                mine = batch_plan.share(rows, means.rank, means.workers)
                at = torch.from_numpy(
                    mine if len(mine) else rows[:1]
                )  # without rows of its own: joins with a loss of 0
                losses = _losses(stepped(values[at], ids[at]), y[at])
                loss = (losses if weights is None else losses * weights[at]).sum() * (1.0 if len(mine) else 0.0)
                (loss * (means.workers / len(rows))).backward()
                torch.nn.utils.clip_grad_norm_(self._network.parameters(), train.max_grad_norm)
                by_gradient.step()
                by_gradient.zero_grad(set_to_none=True)
            yield

    def logits(self, table: Table) -> np.ndarray:
        """Return the network's outputs."""
        import torch

        self._network.eval()
        parts = []
        with torch.inference_mode():
            for at in range(0, len(table), _ROWS_AT_ONCE):
                values, ids = (
                    torch.from_numpy(part[at : at + _ROWS_AT_ONCE]).to(self._device)
                    for part in (table.values, table.ids)
                )
                parts.append(self._network(values, ids).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, max(1, self._n_classes)), np.float32)

    def to(self, device: str, threads: int) -> Estimator:
        import torch

        torch.set_num_threads(threads)
        self._device = device
        self._network.to(device)
        return self

    def _made(self, n_values: int, sizes: tuple[int, ...], n_classes: int) -> None:
        from trainer.tasks.estimators.mlp_network import Network

        self._n_values, self._sizes, self._n_classes = n_values, sizes, n_classes
        self._network = Network(n_values, sizes, max(1, n_classes), **self.params.model_dump())

    def _save(self, path: Path) -> dict[str, Any]:
        from safetensors.torch import save_file

        save_file({name: part.cpu().contiguous() for name, part in self._network.state_dict().items()}, path)
        return {"n_classes": self._n_classes, "n_values": self._n_values, "sizes": list(self._sizes)}

    def _load(self, path: Path, about: dict[str, Any]) -> None:
        from safetensors.torch import load_file

        self._made(int(about["n_values"]), tuple(about["sizes"]), int(about["n_classes"]))
        self._network.load_state_dict(load_file(path))
        self.to("cpu", 1)


def _losses(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the loss of each row, shape (B,): cross entropy, or half the squared error."""
    import torch

    if y.is_floating_point():
        return 0.5 * (logits[:, 0] - y) ** 2
    return torch.nn.functional.cross_entropy(logits, y, reduction="none")
