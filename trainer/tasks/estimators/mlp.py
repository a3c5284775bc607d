"""A small torch network for tables, with embeddings for columns of ids. It is saved as safetensors.

Letters in shapes: B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.optim.batch_plan import plan_batches, shard_rows, steps_per_epoch
from trainer.tasks.estimators.base import Estimator, FeatureTable, FitContext, TrainingLabels
from trainer.tasks.estimators.params import MlpParams

if TYPE_CHECKING:
    import torch

_BATCH_ROWS = 8192


class Mlp(Estimator):
    """Fully connected layers. An epoch is one pass over the rows."""

    kind = "mlp"
    weights_file = "model.safetensors"
    params_type = MlpParams
    has_epochs = True
    backend = "torch"

    def fit(self, table: FeatureTable, labels: TrainingLabels, context: FitContext) -> Iterator[None]:
        """Learn with AdamW. Workers divide the rows of each step; its loss is the mean over all these rows."""
        import torch

        from trainer.optim.distributed.parallel import distribute_model
        from trainer.optim.lr_schedule import lr_factor
        from trainer.optim.optimizer import build_optimizer

        train = context.train
        torch.manual_seed(train.seed)
        self._build_network(table.values.shape[1], table.sizes, labels.n_classes)
        self.to(context.device, context.threads)
        torch.manual_seed(train.seed + context.rank)  # workers drop out different units
        network = distribute_model(self._network, context.device, context.workers)
        n_steps = train.n_epochs * steps_per_epoch(len(table), train.rows_per_step)
        optimizer = build_optimizer(self._network, train)
        values, ids, y = (torch.from_numpy(part).to(context.device) for part in (table.values, table.ids, labels.y))
        weights = None if labels.weights is None else torch.from_numpy(labels.weights).to(context.device)
        equal_lengths = np.zeros(len(table), np.int32)
        step = 0
        for epoch in range(1, train.n_epochs + 1):
            self._network.train()
            for rows in plan_batches(equal_lengths, train.seed, epoch, train.rows_per_step):
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * lr_factor(train, step, n_steps)
                step += 1
                own_rows = shard_rows(rows, context.rank, context.workers)
                # A worker without rows takes part in the step with a loss of 0.
                batch = torch.from_numpy(own_rows if len(own_rows) else rows[:1])
                losses_B = _losses(network(values[batch], ids[batch]), y[batch])
                weighted_B = losses_B if weights is None else losses_B * weights[batch]
                loss = weighted_B.sum() * (1.0 if len(own_rows) else 0.0)
                (loss * (context.workers / len(rows))).backward()
                torch.nn.utils.clip_grad_norm_(self._network.parameters(), train.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            yield

    def logits(self, table: FeatureTable) -> np.ndarray:
        """Return the network's outputs."""
        import torch

        self._network.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(table), _BATCH_ROWS):
                values, ids = (
                    torch.from_numpy(part[start : start + _BATCH_ROWS]).to(self._device)
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

    def _build_network(self, n_values: int, sizes: tuple[int, ...], n_classes: int) -> None:
        from trainer.tasks.estimators.mlp_network import Network

        self._n_values, self._sizes, self._n_classes = n_values, sizes, n_classes
        self._network = Network(n_values, sizes, max(1, n_classes), **self.params.model_dump())

    def _save(self, path: Path) -> dict[str, Any]:
        from safetensors.torch import save_file

        save_file({name: part.cpu().contiguous() for name, part in self._network.state_dict().items()}, path)
        return {"n_classes": self._n_classes, "n_values": self._n_values, "sizes": list(self._sizes)}

    def _load(self, path: Path, description: dict[str, Any]) -> None:
        from safetensors.torch import load_file

        n_values, n_classes = int(description["n_values"]), int(description["n_classes"])
        self._build_network(n_values, tuple(description["sizes"]), n_classes)
        self._network.load_state_dict(load_file(path))
        self.to("cpu", 1)


def _losses(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the loss of each row, shape (B,): cross entropy, or half the squared error."""
    import torch

    if y.is_floating_point():
        return 0.5 * (logits[:, 0] - y) ** 2
    return torch.nn.functional.cross_entropy(logits, y, reduction="none")
