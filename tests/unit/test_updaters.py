"""The flat updater takes the same steps as torch's AdamW, for any pieces, passes and copies."""

import copy

import pytest
import torch

from trainer.optim import flat_updater
from trainer.optim.flat_updater import FlatUpdater
from trainer.optim.torch_updater import TorchUpdater
from trainer.spec.train import TrainSpec

TRAIN = TrainSpec(learning_rate=1e-2, weight_decay=0.1, warmup_fraction=0.2, layerwise_lr_decay=0.7, max_grad_norm=0.5)
STEPS = 12
#: The head of the model: the parameters that loading a base model reports as new.
HEAD = ("2.weight", "2.bias")


def model_of():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 3))


def data(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def learn(updater, model, steps=range(STEPS), passes=1):
    norms = []
    for step in steps:
        updater.set_learning_rates(step)
        inputs, targets = data(step)
        for rows in torch.arange(8).chunk(passes):
            loss = torch.nn.functional.cross_entropy(model(inputs[rows]), targets[rows], reduction="sum")
            updater.backward(loss, 8, more=passes > 1)
        norms.append(updater.update())
    return norms


def values_of(updater):
    return {name: value.detach().clone() for name, value in updater.values.items()}


@pytest.fixture(scope="module")
def theirs():
    model = model_of()
    updater = TorchUpdater(model, TRAIN, STEPS, 1, "fp32", "cpu", new_parameters=HEAD)
    norms = learn(updater, model)
    return values_of(updater), norms, updater.state()[0]


@pytest.mark.parametrize("piece", [7, 100, 1 << 20])
@pytest.mark.parametrize("passes", [1, 3])
def test_the_same_steps(theirs, monkeypatch, piece, passes):
    monkeypatch.setattr(flat_updater, "_PIECE", piece)
    model = model_of()
    updater = FlatUpdater(model, TRAIN, STEPS, 1, new_parameters=HEAD)
    norms = learn(updater, model, passes=passes)
    assert torch.stack(norms).tolist() == pytest.approx(torch.stack(theirs[1]).tolist(), rel=1e-5)
    for name, value in theirs[0].items():
        assert torch.allclose(updater.values[name], value, atol=1e-6), name
        assert torch.equal(model.get_parameter(name), updater.values[name])


class Written(torch.autograd.Function):
    """A layer that writes its gradients, as `BertLayers` does."""

    @staticmethod
    def forward(ctx, values, weight, bias):
        ctx.saved = values, weight, bias
        return torch.addmm(bias[0], values, weight[0].t())

    @staticmethod
    def backward(ctx, gradient):
        values, weight, bias = ctx.saved
        torch.mm(gradient.t(), values, out=weight[1])
        torch.sum(gradient, 0, out=bias[1])
        return gradient @ weight[0], None, None


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.03)])
def test_gradients_that_are_written_in_another_precision(theirs, dtype, tolerance, passes):
    model = model_of()
    updater = FlatUpdater(model, TRAIN, STEPS, 1, list(model[2].parameters()), dtype, HEAD)
    weight, bias = updater.adjacent_views([model[2].weight]), updater.adjacent_views([model[2].bias])
    assert weight[0].dtype is dtype and weight[0].shape == (3, 32)

    def forward(inputs):
        return Written.apply(model[1](model[0](inputs)).to(dtype), weight, bias).float()

    learn(updater, forward, passes=passes)
    for name, value in theirs[0].items():
        assert torch.allclose(updater.values[name], value, atol=tolerance), name
    assert torch.equal(model[2].weight, updater.values["2.weight"].to(dtype))


def test_adjacent_parameters_are_one_view():
    model = torch.nn.ModuleDict({name: torch.nn.Linear(4, 2) for name in "abc"})
    updater = FlatUpdater(
        model, TrainSpec(learning_rate=5e-5, warmup_fraction=0.1), 5, 1, list(model.parameters()), torch.float32
    )
    values, gradient = updater.adjacent_views([model[name].weight for name in "abc"])
    assert torch.equal(values, torch.cat([model[name].weight.detach() for name in "abc"])) and gradient.shape == (6, 4)
    assert updater.adjacent_views([model["a"].weight, model["c"].weight]) is None
    some = FlatUpdater(
        model, TrainSpec(learning_rate=5e-5, warmup_fraction=0.1), 5, 1, [model["a"].weight], torch.float32
    )
    assert some.adjacent_views([model["b"].weight]) is None


@pytest.mark.parametrize(("first", "second"), [("flat", "flat"), ("flat", "torch"), ("torch", "flat")])
def test_each_resumes_from_the_state_of_the_other(theirs, first, second):
    def new_updater(kind, model):
        if kind == "flat":
            return FlatUpdater(model, TRAIN, STEPS, 1, new_parameters=HEAD)
        return TorchUpdater(model, TRAIN, STEPS, 1, "fp32", "cpu", new_parameters=HEAD)

    model = model_of()
    updater = new_updater(first, model)
    learn(updater, model, range(5))
    tensors, others = copy.deepcopy(updater.state())
    values = values_of(updater)
    other = model_of()
    resumed = new_updater(second, other)
    with torch.no_grad():
        for name, value in values.items():
            resumed.values[name].copy_(value)
    resumed.sync_model()
    resumed.restore(tensors, others)
    learn(resumed, other, range(5, STEPS))
    for name, value in theirs[0].items():
        assert torch.allclose(resumed.values[name], value, atol=1e-6), name


def test_rates_follow_the_schedule_in_every_group():
    for kind in ("flat", "torch"):
        model = model_of()
        updater = (
            FlatUpdater(model, TRAIN, STEPS, 1, new_parameters=HEAD)
            if kind == "flat"
            else TorchUpdater(model, TRAIN, STEPS, 1, "fp32", "cpu", new_parameters=HEAD)
        )
        updater.set_learning_rates(STEPS - 1)
        assert updater.learning_rate_of(model[0].weight) == pytest.approx(1e-2 / 10, rel=0.5)


def test_a_step_with_a_non_finite_gradient_is_skipped_in_fp16():
    model = model_of()
    updater = TorchUpdater(model, TRAIN, STEPS, 1, "fp16", "cpu", new_parameters=HEAD)
    before = values_of(updater)
    updater.set_learning_rates(1)
    updater.backward((model(torch.ones(8, 6)) * float("inf")).sum(), 8, more=False)
    assert updater.update() is None and updater.was_skipped()
    assert all(torch.equal(value, before[name]) for name, value in updater.values.items())
    learn(updater, model, range(3))
    assert not updater.was_skipped()
