"""Distributed models: DDP (every worker holds the whole model) or FSDP2 (every worker holds a shard of each weight).

The names are `cluster.strategy` in trainer/spec/run.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch


def distribute_model(
    model: torch.nn.Module, device: str, workers: int, strategy: Literal["ddp", "fsdp"] = "ddp"
) -> Any:
    """Return `model` wrapped to average its gradients over the workers of this process group. All ranks call this."""
    if workers == 1:
        return model
    if strategy == "fsdp":
        return _shard_model(model, device, workers)
    from torch.nn.parallel import DistributedDataParallel

    if device.startswith("cuda"):
        # A parameter without a gradient, such as XLNet's mask_emb, would make the second step fail.
        return DistributedDataParallel(model, device_ids=[device], find_unused_parameters=True)
    # DDP rebuilds its buckets after the first step. With three or more workers, gloo's order of summation depends on
    # the buckets, so a resumed run would differ from an uninterrupted one. find_unused_parameters keeps the first
    # layout.
    return DistributedDataParallel(model, find_unused_parameters=True)


def _shard_model(model: torch.nn.Module, device: str, workers: int) -> torch.nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.partition(":")[0], (workers,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the repeated layers of a model: the items of its outermost module lists. FSDP gathers them one by one."""
    import torch

    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    outermost = [inner for inner in lists if not any(inner in other.modules() for other in lists if other is not inner)]
    return [layer for layers in outermost for layer in layers if any(True for _ in layer.parameters())]


def reshard(model: torch.nn.Module) -> None:
    """Free the gathered weights of a sharded model: by the next step they may be outdated, or inference tensors."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(value: torch.Tensor) -> torch.Tensor:
    """Return the full tensor of `value`, which may be sharded. All ranks call this."""
    gather = getattr(value, "full_tensor", None)
    return gather() if gather is not None else value


def shard_like(value: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return this worker's shard of `value`. If `reference` is not sharded, return all of `value` on its device.

    Each worker cuts its own shard out of `value`, so of a value that is mapped from a file it reads no more than that.
    """
    mesh = getattr(reference, "device_mesh", None)
    if mesh is None:
        return value.to(reference.device)
    from torch.distributed.tensor import DTensor

    (placement,) = reference.placements  # type: ignore[attr-defined]
    shards = value.chunk(mesh.size(), placement.dim)  # as FSDP cuts: the last workers may have none
    rank = mesh.get_local_rank()
    own = shards[rank] if rank < len(shards) else value.narrow(placement.dim, 0, 0)
    local = own.to(mesh.device_type, copy=True).contiguous()
    return DTensor.from_local(
        local,
        mesh,
        reference.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=value.shape,
        stride=value.contiguous().stride(),
    )
