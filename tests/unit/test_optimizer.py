"""Optimizer groups, learning rates, schedules and EMA."""

import math

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from cluster.errors import ModelError, SpecError
from trainer.optim.ema import EMA
from trainer.optim.flat_updater import FlatUpdater
from trainer.optim.lr_schedule import lr_factor
from trainer.optim.optimizer import build_optimizer, freeze_parameters, layer_depths
from trainer.spec.train import TrainSpec


@pytest.fixture()
def model():
    config = BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16)
    return BertForSequenceClassification(config)


def rate_of(model, optimizer, name):
    parameter = model.get_parameter(name)
    (group,) = [group for group in optimizer.param_groups if any(value is parameter for value in group["params"])]
    return group["peak"], group["weight_decay"]


def test_matrices_decay_and_vectors_do_not(model):
    optimizer = build_optimizer(model, TrainSpec(learning_rate=1e-3, weight_decay=0.1))
    assert len(optimizer.param_groups) == 2
    assert rate_of(model, optimizer, "bert.encoder.layer.0.output.dense.weight") == (1e-3, 0.1)
    assert rate_of(model, optimizer, "bert.encoder.layer.0.output.dense.bias") == (1e-3, 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_lower_layers_learn_more_slowly_and_the_head_at_its_own_rate(model):
    optimizer = build_optimizer(model, TrainSpec(learning_rate=1e-3, layerwise_lr_decay=0.5, head_learning_rate=1e-2))
    rates = {
        "classifier.weight": 1e-2,
        "bert.pooler.dense.weight": 1e-2,
        "bert.encoder.layer.2.output.dense.weight": 5e-4,
        "bert.encoder.layer.0.output.dense.weight": 1.25e-4,
        "bert.embeddings.word_embeddings.weight": 6.25e-5,
    }
    for name, rate in rates.items():
        assert rate_of(model, optimizer, name)[0] == pytest.approx(rate), name


def test_depths_of_other_names():
    names = ["distilbert.embeddings.word.weight", "distilbert.transformer.layer.1.lin.weight", "pre_classifier.weight",
             "resnet.encoder.stages.0.layers.0.weight", "vit.layers.11.mlp.weight", "h.5.attn.weight"]  # fmt: skip
    assert list(layer_depths(names).values()) == [0, 2, 13, 1, 12, 6]


def test_frozen_parameters_stay(model):
    freeze_parameters(model, ["bert.embeddings.*", "*.layer.[01].*"])
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert "bert.embeddings.LayerNorm.weight" not in learning and "bert.encoder.layer.2.output.dense.bias" in learning
    assert not any(".layer.0." in name or ".layer.1." in name for name in learning)
    grouped = {
        id(value)
        for group in build_optimizer(model, TrainSpec(learning_rate=5e-5, warmup_fraction=0.1)).param_groups
        for value in group["params"]
    }
    assert grouped == {id(model.get_parameter(name)) for name in learning}


def test_freezing_no_parameter_or_all_of_them_is_an_error(model):
    with pytest.raises(SpecError, match="no parameter is called 'bert.embedding'"):
        freeze_parameters(model, ["bert.embedding"])
    with pytest.raises(SpecError, match="leaves no parameter to train"):
        freeze_parameters(model, ["*"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="8-bit state works on a GPU")
def test_eight_bits_need_a_gpu(model):
    with pytest.raises(ModelError, match="adamw_8bit needs a GPU"):
        build_optimizer(model, TrainSpec(optimizer="adamw_8bit", learning_rate=1e-3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_eight_bits_learn_like_fp32(model):
    pytest.importorskip("bitsandbytes")
    model = model.cuda()
    optimizer = build_optimizer(model, TrainSpec(optimizer="adamw_8bit", learning_rate=1e-3))
    ids = torch.randint(5, 60, (8, 10), device="cuda")
    losses = []
    for _ in range(30):
        loss = model(input_ids=ids, labels=torch.arange(8, device="cuda") % 2).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "wsd"])
def test_schedules_rise_then_fall(schedule):
    train = TrainSpec(schedule=schedule, warmup_fraction=0.1, decay_fraction=0.25)
    values = [lr_factor(train, step, 200) for step in range(200)]
    assert values[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert all(0.0 < value <= 1.0 for value in values)
    after = values[20:]
    assert after == sorted(after, reverse=True) and after[0] == pytest.approx(1.0, abs=0.01)
    if schedule == "constant":
        assert set(after) == {1.0}
    if schedule == "linear":
        assert values[110] == pytest.approx(0.5)
    if schedule == "cosine":
        assert values[110] == pytest.approx(0.5) and values[65] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    if schedule == "wsd":
        assert values[149] == 1.0 and values[175] == pytest.approx(0.5)


def test_a_schedule_of_one_step_and_beyond_its_end():
    for schedule in ("linear", "cosine", "constant", "wsd"):
        train = TrainSpec(schedule=schedule, warmup_fraction=0.1)
        assert lr_factor(train, 0, 1) > 0 and lr_factor(train, 5, 3) >= 0


def test_ema_weights_are_swapped_in_and_out():
    model = torch.nn.Linear(2, 1, bias=False)
    updater = FlatUpdater(
        model, TrainSpec(learning_rate=5e-5, warmup_fraction=0.1), 10, 1, list(model.parameters()), torch.bfloat16
    )
    updater.values["weight"].fill_(1.0)
    average = EMA(updater, 0.9)
    average.weights["weight"].fill_(1.0)
    for value in (2.0, 3.0):
        updater.values["weight"].fill_(value)
        updater.sync_model()
        average.update()
    with average.swapped_in():
        assert updater.values["weight"].tolist() == [[pytest.approx(0.9 * 1.1 + 0.3)] * 2]
        assert model.weight.tolist() == [[pytest.approx(1.29, abs=0.01)] * 2]
    assert model.weight.tolist() == updater.values["weight"].tolist() == [[3.0, 3.0]]
    without = EMA(updater, None)
    without.update()
    with without.swapped_in():
        assert model.weight.tolist() == [[3.0, 3.0]]
