"""How the workers of one training share a model: DDP (each has it whole) or FSDP2 (each has a part of every weight)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch


def distributed(model: torch.nn.Module, device: str, workers: int, how: Literal["ddp", "fsdp"] = "ddp") -> Any:
    """Return the model that averages gradients over the workers of this process group; all ranks call this."""
    if workers == 1:
        return model
    if how == "fsdp":
        return _sharded(model, device, workers)
    from torch.nn.parallel import DistributedDataParallel

    if device.startswith("cuda"):
        # A parameter that gets no gradient, as XLNet's mask_emb, would make the second step fail.
        return DistributedDataParallel(model, device_ids=[device], find_unused_parameters=True)
    # DDP lays its buckets out anew after the first step it sees, and with three workers or more gloo adds numbers up in an
    # order that goes by their place in a bucket: a run that goes on would add in another order than one that never
    # stopped. Looking for unused parameters keeps the first layout.
    return DistributedDataParallel(model, find_unused_parameters=True)


def _sharded(model: torch.nn.Module, device: str, workers: int) -> torch.nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.partition(":")[0], (workers,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the repeated parts of a model, each gathered on its own: what stands in its lists of modules."""
    import torch

    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    outer = [found for found in lists if not any(found in other.modules() for other in lists if other is not found)]
    return [layer for found in outer for layer in found if any(True for _ in layer.parameters())]


def reshard(model: torch.nn.Module) -> None:
    """Let go of what a sharded model has gathered: it may be other values, or inference's, by the next step."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor of which this worker may hold a part only, in full; all ranks call this."""
    full = getattr(value, "full_tensor", None)
    return full() if full is not None else value


def like(value: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """Return the part of `value` that this worker holds where it holds a part of `model`; else `value` on its device."""
    mesh = getattr(model, "device_mesh", None)
    if mesh is None:
        return value.to(model.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(mesh.device_type), mesh, model.placements)  # type: ignore[attr-defined]
