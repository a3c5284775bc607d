"""Muon: orthogonal updates, rows of embeddings, resume, passes and workers."""

import os

import pytest
import torch
import torch.multiprocessing

from cluster.errors import SpecError
from cluster.ports import free_port
from trainer.optim import muon, row_adam
from trainer.optim.muon_updater import MuonUpdater
from trainer.spec.run import RunSpec
from trainer.spec.train import TrainSpec

STEPS, ROWS = 6, 40
TRAIN = TrainSpec.model_validate(
    {
        "optimizer": "muon",
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 0.02,
        "matrix_learning_rate": 0.01,
        "warmup_fraction": 0.2,
        "weight_decay": 0.1,
    }
)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(ROWS, 8)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))
        self.head = torch.nn.Linear(8, 3)

    def forward(self, ids):
        states = self.table(ids)
        for layer in self.layers:
            states = states + layer(states).relu()
        return self.head(states)


def data(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, ROWS, (8,), generator=generator), torch.randint(0, 3, (8,), generator=generator)


def updater_of(model, workers=1):
    return MuonUpdater(model, TRAIN, STEPS, workers)


def learn(updater, model, steps=range(STEPS), passes=1, rows=slice(None)):
    norms = []
    for step in steps:
        updater.set_learning_rates(step)
        ids, targets = (values[rows] for values in data(step))
        for part in torch.arange(len(ids)).chunk(passes):
            loss = torch.nn.functional.cross_entropy(model(ids[part]), targets[part], reduction="sum")
            updater.backward(loss, 8, more=passes > 1)
        norms.append(updater.update())
    return norms


@pytest.fixture(scope="module")
def alone():
    model = Model()
    updater = updater_of(model)
    norms = learn(updater, model)
    return {name: value.detach().clone() for name, value in updater.values.items()}, norms


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_singular_values_become_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = muon.orthogonalize(matrices)
    assert 0.6 < torch.linalg.svdvals(made).min() <= torch.linalg.svdvals(made).max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(made.flatten(1), (left @ right).flatten(1))
    assert cosine.min() > 0.97


def test_a_zero_gradient_changes_nothing():
    matrix = torch.ones(4, 4)
    muon.muon_step([matrix], [torch.zeros(4, 4)], [muon.new_state(matrix)], 1, 0.1, 0.0)
    assert torch.equal(matrix, torch.ones(4, 4))


def test_updates_have_the_size_of_adamws():
    matrix = torch.zeros(32, 128)
    gradient = torch.randn(32, 128, generator=torch.Generator().manual_seed(0))
    muon.muon_step([matrix], [gradient], [muon.new_state(matrix)], 1, 1.0, 0.0)
    assert float(matrix.square().mean().sqrt()) == pytest.approx(0.2, rel=0.15)


def test_weight_decay_shrinks_matrices():
    matrix = torch.ones(4, 4)
    muon.muon_step([matrix], [torch.zeros(4, 4)], [muon.new_state(matrix)], 1, 0.1, 0.5)
    assert torch.allclose(matrix, torch.full((4, 4), 0.95))


def test_rows_take_the_steps_of_adam():
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(6, 4))
    other = torch.nn.Parameter(table.detach().clone())
    state = row_adam.new_state(table.data)
    adam = torch.optim.Adam([other], lr=0.1, betas=(row_adam.BETA1, row_adam.BETA2), eps=row_adam.EPSILON)
    for _ in range(4):
        values = torch.randn(6, 4)
        other.grad = values.clone()
        adam.step()
        with torch.no_grad():
            row_adam.row_step(table, row_adam.RowGradient(torch.arange(6), values), state, 0.1)
    assert torch.allclose(table, other, atol=1e-5)


def test_rows_that_no_token_uses_do_not_change(alone):
    used = set(torch.cat([data(step)[0] for step in range(STEPS)]).tolist())
    before = Model().table.weight
    changed = (alone[0]["table.weight"] != before).any(1)
    assert used == set(changed.nonzero().flatten().tolist()) and len(used) < ROWS


def test_passes_give_the_same_steps(alone):
    model = Model()
    updater = updater_of(model)
    norms = learn(updater, model, passes=3)
    assert torch.stack(norms).tolist() == pytest.approx(torch.stack(alone[1]).tolist(), rel=1e-5)
    for name, value in alone[0].items():
        assert torch.allclose(updater.values[name], value, atol=1e-5), name


def test_a_resumed_training_takes_the_same_steps(alone):
    model = Model()
    updater = updater_of(model)
    learn(updater, model, range(3))
    tensors, others = updater.state()
    tensors = {name: value.clone() for name, value in tensors.items()}
    again = Model()
    again.load_state_dict(model.state_dict())
    resumed = updater_of(again)
    resumed.restore(tensors, others)
    learn(resumed, again, range(3, STEPS))
    for name, value in alone[0].items():
        assert torch.equal(resumed.values[name], value), name


def test_a_tied_embedding_learns_densely():
    model = Model()
    model.head = torch.nn.Linear(8, ROWS, bias=False)
    model.head.weight = model.table.weight
    updater = updater_of(model)
    loss = torch.nn.functional.cross_entropy(model(data(0)[0]), data(0)[0], reduction="sum")
    updater.set_learning_rates(0)
    updater.backward(loss, 8, more=False)
    before = model.table.weight.detach().clone()
    updater.update()
    assert not model.table.sparse and (model.table.weight != before).all()


def test_a_model_without_layers_is_refused():
    with pytest.raises(SpecError, match="no matrices"):
        updater_of(torch.nn.Sequential(torch.nn.Linear(4, 4)))


def check_worker(rank, port, expected):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = Model()
    updater = updater_of(model, workers=2)
    learn(updater, model, rows=slice(None, 5) if rank == 0 else slice(5, None))
    for name, value in expected.items():
        assert torch.allclose(updater.values[name], value, atol=1e-5), name
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_workers_take_the_same_steps(alone):
    torch.multiprocessing.spawn(check_worker, (free_port(), alone[0]), nprocs=2)


@pytest.mark.parametrize(
    ("train", "cluster", "message"),
    [
        ({"optimizer": "muon"}, {"strategy": "fsdp"}, "shards them"),
        ({"optimizer": "muon", "precision": "fp16"}, {}, "fp16"),
        ({"matrix_learning_rate": 0.01}, {}, "for train.optimizer: muon"),
    ],
)
def test_settings_that_do_not_fit_are_refused(train, cluster, message):
    values = {"task": "text-classification", "name": "a", "model": {"base": "x"}, "data": {"train": "a.csv"}}
    with pytest.raises(ValueError, match=message):
        RunSpec.model_validate({**values, "train": train, "cluster": cluster})
