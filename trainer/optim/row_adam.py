"""Adam for tables of which a step uses a few rows: only those rows, and their part of the state, are read and written.

A row's moments do not change in steps that do not use it, and its bias correction counts its own steps ("lazy" Adam). A
table of a million rows then costs no more than one of a hundred.

Letters in shapes: R rows of the table, U rows that a step uses, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-10


class RowGradient(NamedTuple):
    """The gradient of the rows of a table that a step uses."""

    rows: torch.Tensor
    """Their numbers, int64, (U,), rising."""
    values: torch.Tensor
    """(U, D)."""


class TableState(NamedTuple):
    """What the optimizer remembers of a table (R, D)."""

    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor
    steps: torch.Tensor
    """How many steps used each row, float, (R, 1)."""


def new_state(table: torch.Tensor) -> TableState:
    """Return the state before the first step."""
    return TableState(torch.zeros_like(table), torch.zeros_like(table), table.new_zeros(table.shape[0], 1))


def row_gradient(table: torch.Tensor, workers: int) -> RowGradient:
    """Return the gradient of a table, summed over all workers in the order of their ranks. All ranks call this.

    `table.grad` is sparse, or None if this worker used no row.
    """
    gradient = table.grad
    if gradient is None:
        own = RowGradient(torch.zeros(0, dtype=torch.int64, device=table.device), table.new_zeros(0, table.shape[1]))
    else:
        own = _sum_rows(gradient._indices()[0], gradient._values())
    if workers == 1:
        return own
    parts = _gather(own, workers)
    return _sum_rows(torch.cat([part.rows for part in parts]), torch.cat([part.values for part in parts]))


def _sum_rows(rows: torch.Tensor, values: torch.Tensor) -> RowGradient:
    """Return the sum of the values (N, D) of each row; `rows` (N,) may repeat."""
    unique, positions = torch.unique(rows, return_inverse=True)
    summed = values.new_zeros(len(unique), values.shape[1])
    return RowGradient(unique, summed.index_add_(0, positions, values))


def _gather(own: RowGradient, workers: int) -> list[RowGradient]:
    """Return the gradients of all workers, in the order of their ranks."""
    from torch import distributed

    counts = [torch.zeros(1, dtype=torch.int64, device=own.rows.device) for _ in range(workers)]
    distributed.all_gather(counts, torch.tensor([len(own.rows)], device=own.rows.device))
    sizes = [int(count) for count in counts]
    room = max(sizes) - len(own.rows)
    rows = torch.nn.functional.pad(own.rows, (0, room))
    values = torch.nn.functional.pad(own.values, (0, 0, 0, room))
    all_rows = [torch.empty_like(rows) for _ in sizes]
    all_values = [torch.empty_like(values) for _ in sizes]
    distributed.all_gather(all_rows, rows)
    distributed.all_gather(all_values, values)
    return [
        RowGradient(part_rows[:size], part_values[:size])
        for part_rows, part_values, size in zip(all_rows, all_values, sizes, strict=True)
    ]


def row_step(table: torch.Tensor, gradient: RowGradient, state: TableState, learning_rate: float) -> None:
    """Take one step with the rows of `gradient`, in place."""
    rows, values = gradient
    steps = state.steps[rows] + 1
    mean = state.exp_avg[rows].lerp_(values, 1 - BETA1)
    square = state.exp_avg_sq[rows].mul_(BETA2).addcmul_(values, values, value=1 - BETA2)
    state.steps[rows], state.exp_avg[rows], state.exp_avg_sq[rows] = steps, mean, square
    root = (square / (1 - BETA2**steps)).sqrt_().add_(EPSILON)
    table.index_add_(0, rows, (mean / (1 - BETA1**steps)).div_(root), alpha=-learning_rate)
