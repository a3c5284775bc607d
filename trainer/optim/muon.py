"""Muon: the update of a matrix is its momentum with all singular values set to about 1.

Sources: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); the coefficients of the iteration are Polar
Express's (Amsel et al. 2025, arXiv:2505.16932, with its safety factor); the size of the update is that of AdamW's (Liu et
al. 2025, arXiv:2502.16982), so both take one learning rate; rows of the update are scaled to equal sizes over time (NorMuon,
Li et al. 2025, arXiv:2510.05491).

Letters in shapes: N matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

# Coefficients (a, b, c) of X <- a X + (b A + c A A) X with A = X X^T, one triple for each iteration.
_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
#: The entries of AdamW's updates have a root mean square of 0.2 to 0.4; Muon's have this one.
_UPDATE_SIZE = 0.2
MOMENTUM, SECOND_BETA = 0.95, 0.95


def orthogonalize(matrices_NRC: torch.Tensor) -> torch.Tensor:
    """Return matrices with the singular vectors of `matrices_NRC` and singular values near 1. A zero matrix stays zero.

    On a GPU in bf16, which is precise enough.
    """
    values = matrices_NRC.bfloat16() if matrices_NRC.is_cuda else matrices_NRC
    is_tall = values.shape[-2] > values.shape[-1]
    if is_tall:
        values = values.mT
    values = values / (values.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
    for factor, factor_3, factor_5 in _POLAR_EXPRESS:
        squares = values @ values.mT
        polynomial = torch.baddbmm(squares, squares, squares, beta=factor_3, alpha=factor_5)
        values = torch.baddbmm(values, polynomial, values, beta=factor)
    return (values.mT if is_tall else values).to(matrices_NRC.dtype)


class MatrixState(NamedTuple):
    """What Muon remembers of a matrix (R, C)."""

    momentum: torch.Tensor
    """The moving average of the gradients, (R, C)."""
    row_squares: torch.Tensor
    """The moving average of each row's mean square in the update, (R, 1)."""


def new_state(matrix: torch.Tensor) -> MatrixState:
    """Return the state before the first step."""
    return MatrixState(torch.zeros_like(matrix), matrix.new_zeros(matrix.shape[0], 1))


def muon_step(
    matrices: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    states: Sequence[MatrixState],
    step: int,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """Take one step with matrices of one shape (R, C), in place. `step` counts from 1.

    The learning rate is on AdamW's scale.
    """
    n_rows, n_columns = matrices[0].shape
    looked_ahead = []
    for gradient, state in zip(gradients, states, strict=True):
        state.momentum.lerp_(gradient, 1 - MOMENTUM)
        looked_ahead.append(torch.lerp(gradient, state.momentum, MOMENTUM))  # Nesterov's momentum
    updates_NRC = orthogonalize(torch.stack(looked_ahead))
    updates_NRC = _even_rows(updates_NRC, states, step)
    size = _UPDATE_SIZE * max(n_rows, n_columns) ** 0.5
    for matrix, update in zip(matrices, updates_NRC, strict=True):
        if weight_decay:
            matrix.mul_(1 - learning_rate * weight_decay)
        matrix.add_(update, alpha=-learning_rate * size)


def _even_rows(updates_NRC: torch.Tensor, states: Sequence[MatrixState], step: int) -> torch.Tensor:
    """Divide each row by its usual size, and scale each matrix back to its own norm."""
    squares = updates_NRC.square().mean(-1, keepdim=True)
    for state, own in zip(states, squares, strict=True):
        state.row_squares.lerp_(own, 1 - SECOND_BETA)
    usual = torch.stack([state.row_squares for state in states]) / (1 - SECOND_BETA**step)
    evened = updates_NRC / (usual.sqrt() + 1e-8)
    norms = updates_NRC.norm(dim=(-2, -1), keepdim=True)
    return evened * (norms / (evened.norm(dim=(-2, -1), keepdim=True) + 1e-7))
