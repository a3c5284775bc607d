"""The peak of live tensors of one training pass, traced on torch's device `meta`: no values, no memory, any model.

A tensor on `meta` has a shape and a type only, so the pass runs in a second whatever the model's size. Each operation's new
storages are counted until Python's last reference and autograd's last graph node let go of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch


class TracedPass(NamedTuple):
    """The live bytes of a pass, without the weights and their gradients."""

    saved: int
    """After the forward pass: what the backward pass needs."""
    peak: int
    """At the highest point of the forward and backward pass."""


def trace_pass(
    model: torch.nn.Module, batch: dict[str, Any], loss_of: Callable[[Any], torch.Tensor]
) -> TracedPass | None:
    """Return the live bytes of a training pass of `model` on `batch`, both on `meta`; None if it cannot be traced.

    `loss_of` returns the summed loss of what the model returns.

    A model cannot be traced if its code reads the values of tensors, except for yes or no, which is answered with no.
    """
    import torch

    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    live = _live_bytes([*model.parameters(), *model.buffers(), *tensors])
    try:
        with live:
            loss = loss_of(model(**batch))
            saved = live.now
            weights = [weight for weight in model.parameters() if weight.requires_grad]
            hooks = [weight.register_post_accumulate_grad_hook(_drop_gradient) for weight in weights]
            loss.backward()
            for hook in hooks:
                hook.remove()
    except Exception:  # the model's own code: an operation without a rule for `meta`, or one that reads values
        return None
    return TracedPass(saved, live.peak)


def _drop_gradient(weight: torch.Tensor) -> None:
    weight.grad = None  # gradients of weights are another term


def _live_bytes(existing: list[torch.Tensor]) -> Any:
    """Return a context manager that counts the bytes of all storages made while it is active, as `now` and `peak`.

    Storages of `existing` tensors do not count.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class LiveBytes(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0
            self._existing = [tensor.untyped_storage() for tensor in existing]
            self._known: dict[int, Any] = {id(storage): storage for storage in self._existing}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype is torch.bool:
                return False  # "are all rows of one length?" and the like
            result = func(*args, **(kwargs or {}))
            for value in torch.utils._pytree.tree_leaves(result):
                if isinstance(value, torch.Tensor):
                    self._count(value.untyped_storage())
            return result

        def _count(self, storage: Any) -> None:
            key = id(storage)
            if key in self._known:
                return
            size = storage.nbytes()

            def forget(_: Any) -> None:
                self.now -= size
                self._known.pop(key, None)

            self._known[key] = weakref.ref(storage, forget)
            self.now += size
            self.peak = max(self.peak, self.now)

    return LiveBytes()
