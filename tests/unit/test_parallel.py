"""Sharded tensors: each worker cuts the shard that FSDP gives it, and rank 0 alone gathers a checkpoint's tensors."""

import os
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from cluster.ports import free_port
from trainer.optim.distributed.parallel import distribute_model, full_tensor, shard_like
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.optim.ema import EMA
from trainer.optim.torch_updater import TorchUpdater
from trainer.spec.train import TrainSpec
from trainer.training.train_module import TrainModule

WORKERS = 3
SETTINGS = {"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "warmup_fraction": 0.1}


class Layers(torch.nn.Module):
    """Layers whose rows cannot be divided by the workers, one of them with fewer rows than workers."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(5, 7), torch.nn.Linear(7, 2)])

    def forward(self, x):
        return self.layers[1](self.layers[0](x))


def check_worker(rank, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=WORKERS)
    torch.manual_seed(0)
    model = distribute_model(Layers(), "cpu", WORKERS, "fsdp")
    updater = TorchUpdater(model, TrainSpec.model_validate(SETTINGS), 10, WORKERS, "fp32", "cpu")
    updater.set_learning_rates(5)
    updater.backward(model(torch.ones(2, 5)).square().sum(), 2, more=False)
    updater.update()
    for parameter in model.parameters():
        values = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
        shard = shard_like(values, parameter)
        assert shard.to_local().shape == parameter.to_local().shape
        assert torch.equal(full_tensor(shard), values)  # all ranks

    module = TrainModule.__new__(TrainModule)
    module.model, module._updater, module._ema = model, updater, EMA(updater, None)
    module._worker, module._vocabulary = WorkerContext(rank, WORKERS, "cpu", 1), SimpleNamespace(decay_factor=1.0)
    tensors, others = module.state()  # all ranks
    assert set(others) == {"kept", "updater"}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if rank == 0:
        assert shapes["model.layers.0.weight"] == shapes["updater.layers.0.weight.exp_avg"] == (7, 5)
        assert all(type(value) is torch.Tensor for value in tensors.values())
    else:
        assert tensors == {}
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_workers_cut_their_own_shards_and_rank_0_gathers_them():
    torch.multiprocessing.spawn(check_worker, (free_port(),), nprocs=WORKERS)
