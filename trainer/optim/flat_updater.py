"""AdamW for CPUs, where memory bandwidth is the limit: one flat tensor, updated one cache-sized piece at a time.

Values, gradients and moments are stored in one tensor each. *Direct* parameters may be multiplied in another precision,
for example bf16: the model holds copies of them in that precision, and hand-written layers write their gradients to
adjacent memory, without autograd's accumulation. The gradients of a piece are read, clipped and applied while they are
in the cache, and the copies are updated from the cached values. torch's own optimizer passes over all memory once for
each of these operations.

Workers sum a single gradient tensor in a fixed order, so repeated runs take the same steps, on any number of workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim.adamw import adamw

from trainer.optim.lr_schedule import lr_factor
from trainer.optim.optimizer import group_parameters
from trainer.spec.train import TrainSpec

# Elements of one piece. One step on 2 cores with 32 MB of last-level cache took 6.9 ms with 2**17 elements, 6.1 ms with
# 2**18 and 5.2 ms with 2**20.
_PIECE = 1 << 20
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Piece(NamedTuple):
    """A range of the flat tensors: adjacent parameters of one group, or a part of a large parameter."""

    group: int
    start: int
    end: int
    direct_start: int | None
    """The offset of the piece in the tensor of direct copies; None if its parameters are not direct."""


class FlatUpdater:
    """Implements `trainer.optim.updater.Updater` on flat tensors."""

    def __init__(
        self,
        model: torch.nn.Module,
        train: TrainSpec,
        n_steps: int,
        workers: int,
        direct: Sequence[torch.nn.Parameter] = (),
        dtype: torch.dtype = torch.float32,
        new_parameters: Collection[str] = (),
    ) -> None:
        """Move the parameters of `model` into flat tensors.

        `direct` parameters are multiplied in `dtype`, and their gradients are written to the tensors that
        `adjacent_views` returns; all other parameters get their gradients from autograd.
        """
        self._train, self._n_steps, self._workers = train, n_steps, workers
        self._groups = group_parameters(model, train, new_parameters)
        names = {id(value): name for name, value in model.named_parameters()}
        direct_ids = {id(value) for value in direct}
        self._spans: dict[int, tuple[int, int]] = {}
        self._direct_starts: dict[int, int] = {}
        self._pieces: list[Piece] = []
        offset = n_direct = 0
        for number, group in enumerate(self._groups):
            for is_direct in (True, False):
                members = [value for value in group["params"] if (id(value) in direct_ids) is is_direct]
                size = sum(value.numel() for value in members)
                self._pieces += _split(number, offset, offset + size, n_direct if is_direct else None)
                for value in members:
                    self._spans[id(value)] = (offset, offset + value.numel())
                    if is_direct:
                        self._direct_starts[id(value)] = n_direct
                        n_direct += value.numel()
                    offset += value.numel()
        self._flat = torch.empty(offset)
        self._gradient = torch.zeros(offset)
        self._moments = {key: torch.zeros(offset) for key in _MOMENTS}
        self._copies = torch.empty(n_direct, dtype=dtype)
        self._direct_gradient = torch.zeros(n_direct, dtype=dtype)
        self._is_summed = False
        self._updates = 0
        self._scratch = torch.empty(min(_PIECE, offset))
        self._parameters = [value for group in self._groups for value in group["params"]]
        self.values: dict[str, torch.Tensor] = {}
        for value in self._parameters:
            start, end = self._spans[id(value)]
            master = self._flat[start:end].view(value.shape)
            master.copy_(value.detach())
            self.values[names[id(value)]] = master
            value.data, value.grad = self._model_view(value, master), self._gradient_view(value)
        self.sync_model()

    def _model_view(self, value: torch.nn.Parameter, master: torch.Tensor) -> torch.Tensor:
        """Return the tensor that the model multiplies by: the copy of a direct parameter, else the master weights."""
        start = self._direct_starts.get(id(value))
        return master if start is None else self._copies[start : start + value.numel()].view(value.shape)

    def _gradient_view(self, value: torch.nn.Parameter) -> torch.Tensor | None:
        """Return the tensor in which autograd accumulates a parameter's gradient; None for direct parameters."""
        if id(value) in self._direct_starts:
            return None
        start, end = self._spans[id(value)]
        return self._gradient[start:end].view(value.shape)

    # -- for hand-written layers

    def adjacent_views(self, parameters: Sequence[torch.nn.Parameter]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return direct `parameters` stacked on the first axis in one tensor, and the tensor for their gradient.

        Both are views. Return None if the parameters are not direct, or not adjacent in memory.
        """
        starts = [self._direct_starts.get(id(value)) for value in parameters]
        first, end = starts[0], starts[0]
        for value, start in zip(parameters, starts, strict=True):
            if end is None or start != end:
                return None
            end += value.numel()
        shape = (-1, *parameters[0].shape[1:])
        return self._copies[first:end].view(shape), self._direct_gradient[first:end].view(shape)

    # -- steps

    def set_learning_rates(self, step: int) -> None:
        share = lr_factor(self._train, step, self._n_steps)
        for group in self._groups:
            group["lr"] = group["peak"] * share

    def learning_rate_of(self, parameter: torch.Tensor) -> float:
        group = next(group for group in self._groups if any(value is parameter for value in group["params"]))
        return float(group["lr"])

    def backward(self, loss_sum: torch.Tensor, divisor: int, *, more: bool) -> None:
        # The loss of a step is a sum over all workers divided by one number, so gradients are summed, not averaged.
        (loss_sum / divisor).backward()
        if more or self._workers > 1:
            for piece in self._direct_pieces():
                self._gradient[piece.start : piece.end] += self._direct_gradient_of(piece)
            self._is_summed = True

    def update(self) -> torch.Tensor:
        if self._workers > 1:
            torch.distributed.all_reduce(self._gradient)  # all ranks
        norm = self._norm()
        scale = min(1.0, self._train.max_grad_norm / (float(norm) + 1e-6))
        for piece in self._pieces:
            self._update(piece, scale)
        self._updates += 1
        self._is_summed = False
        return norm

    def _norm(self) -> torch.Tensor:
        squares = torch.zeros(())
        for piece in self._pieces:
            gradient = self._gradient_of(piece)
            squares += torch.dot(gradient, gradient)
        return squares.sqrt()

    def _update(self, piece: Piece, scale: float) -> None:
        span = slice(piece.start, piece.end)
        group = self._groups[piece.group]
        gradient = self._gradient_of(piece).mul_(scale)
        adamw(
            [self._flat[span]],
            [gradient],
            [self._moments["exp_avg"][span]],
            [self._moments["exp_avg_sq"][span]],
            [],
            [torch.tensor(float(self._updates))],
            fused=True,
            amsgrad=False,
            beta1=_BETA1,
            beta2=_BETA2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=_EPSILON,
            maximize=False,
        )
        if piece.direct_start is None or self._is_summed:
            self._gradient[span].zero_()
        if piece.direct_start is not None:
            self._copies[piece.direct_start : piece.direct_start + piece.end - piece.start].copy_(self._flat[span])

    def _gradient_of(self, piece: Piece) -> torch.Tensor:
        """Return the gradient of a piece in fp32. The caller may overwrite it."""
        if piece.direct_start is None or self._is_summed:
            return self._gradient[piece.start : piece.end]
        return self._scratch[: piece.end - piece.start].copy_(self._direct_gradient_of(piece))

    def _direct_gradient_of(self, piece: Piece) -> torch.Tensor:
        assert piece.direct_start is not None
        return self._direct_gradient[piece.direct_start : piece.direct_start + piece.end - piece.start]

    def _direct_pieces(self) -> Iterator[Piece]:
        return (piece for piece in self._pieces if piece.direct_start is not None)

    def was_skipped(self) -> bool:
        return False

    def gradients(self) -> dict[str, torch.Tensor]:
        """Return copies of the gradients accumulated so far, by name."""
        spans = {name: (value.storage_offset(), value.numel()) for name, value in self.values.items()}
        return {
            name: self._gradient[start : start + size].view(self.values[name].shape).clone()
            for name, (start, size) in spans.items()
        }

    # -- state

    def sync_model(self) -> None:
        for piece in self._direct_pieces():
            assert piece.direct_start is not None
            size = piece.end - piece.start
            self._copies[piece.direct_start : piece.direct_start + size].copy_(self._flat[piece.start : piece.end])

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors = {}
        for name, value in self.values.items():
            start = value.storage_offset()
            for key, moments in self._moments.items():
                tensors[f"{name}.{key}"] = moments[start : start + value.numel()].view(value.shape)
            tensors[f"{name}.step"] = torch.tensor(float(self._updates))  # the format of torch's AdamW
        return tensors, {}

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        for name, value in self.values.items():
            start = value.storage_offset()
            for key, moments in self._moments.items():
                moments[start : start + value.numel()].view(value.shape).copy_(tensors[f"{name}.{key}"])
            self._updates = int(tensors[f"{name}.step"])


def _split(group: int, start: int, end: int, direct_start: int | None) -> list[Piece]:
    """Split a range of one group's parameters into pieces of at most `_PIECE` elements."""
    return [
        Piece(group, first, min(first + _PIECE, end), None if direct_start is None else direct_start + first - start)
        for first in range(start, end, _PIECE)
    ]
