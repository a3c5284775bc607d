"""The network of `model.kind: mlp`. Letters in shapes: B rows, V float inputs, K columns of ids, C outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

_MAX_EMBEDDING = 32


class Network(nn.Module):
    """Fully connected layers (Linear, LayerNorm, ReLU, dropout) over the values and an embedding of each id."""

    def __init__(
        self,
        n_values: int,
        sizes: Sequence[int],
        n_outputs: int,
        hidden: Sequence[int],
        dropout: float,
        embedding: int | None,
    ) -> None:
        super().__init__()
        widths = [embedding or min(_MAX_EMBEDDING, (size + 1) // 2 + 1) for size in sizes]
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, widths, strict=True))
        layers: list[nn.Module] = []
        n_inputs = n_values + sum(widths)
        for width in hidden:
            layers += [nn.Linear(n_inputs, width), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(dropout)]
            n_inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(n_inputs, n_outputs))

    def forward(self, values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return float32 of shape (B, C) for float32 `values` (B, V) and int64 `ids` (B, K)."""
        parts = [values, *(table(ids[:, column]) for column, table in enumerate(self.embeddings))]
        outputs: torch.Tensor = self.layers(torch.cat(parts, dim=1))
        return outputs
