"""The leaner encoder: the logits and gradients of transformers' own, for every model that it takes."""

import copy

import numpy as np
import pytest
import torch
import transformers

from trainer.optim.bert.dropout import Noise, by_row, row_keys
from trainer.optim.bert.encoder import BertLayers, lean
from trainer.optim.flat_updater import FlatUpdater
from trainer.spec.train import Train

SIZES = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
         "max_position_embeddings": 40, "num_labels": 3}  # fmt: skip
KINDS = ["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "Ernie"]


def model_of(kind, **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **changes})
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def batch():
    torch.manual_seed(1)
    ids = torch.randint(5, 120, (5, 12))
    mask = torch.ones_like(ids)
    mask[0, 9:] = mask[3, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def learned(model, labels, updater=None):
    """Return the loss and the gradients by name of one pass."""
    loss = torch.nn.functional.cross_entropy(model(**batch()).logits, labels, reduction="sum")
    if updater is None:
        (loss / len(labels)).backward()
        return float(loss.detach()), {name: value.grad for name, value in model.named_parameters()}
    updater.backward(loss, len(labels), more=True)
    return float(loss.detach()), updater.gradients()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_by_hand_learn_what_autograd_does(kind, dropout):
    keys = row_keys(1, 1, 1, np.arange(5))
    found = []
    for by_hand in (False, True):
        model = model_of(kind).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout
        noise = by_row(model)
        layers = lean(model, noise)
        updater = FlatUpdater(model, Train(), 10, 1, layers.direct(), torch.float32)
        if by_hand:
            layers.use(updater)
        else:
            for value in layers.parameters():  # autograd adds up what nobody writes
                value.grad = None
        noise.begin(keys)
        loss, gradients = learned(model, torch.tensor([0, 1, 2, 1, 0]), updater if by_hand else None)
        found.append((loss, gradients))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for name, theirs in found[0][1].items():
        theirs = torch.zeros_like(found[1][1][name]) if theirs is None else theirs
        assert torch.allclose(found[1][1][name], theirs, atol=1e-6), name


def test_layers_that_are_frozen_or_have_small_matrices_are_left_to_autograd():
    frozen = model_of("Bert")
    frozen.bert.encoder.layer[0].output.dense.weight.requires_grad_(False)
    assert lean(frozen, by_row(frozen)).direct() == []
    other = model_of("Bert", hidden_act="relu")
    assert lean(other, by_row(other)).direct() == []


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_the_models_own(kind):
    plain = model_of(kind).train()
    ours = copy.deepcopy(plain)
    assert lean(ours, by_row(ours))
    assert ours.training and any(isinstance(module, BertLayers) for module in ours.modules())
    assert list(plain.state_dict()) == list(ours.state_dict())
    labels = torch.tensor([0, 1, 2, 1, 0])
    losses = []
    for model in (plain, ours):
        loss = torch.nn.functional.cross_entropy(model(**batch()).logits, labels)
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for (name, left), right in zip(plain.named_parameters(), ours.parameters(), strict=True):
        left_grad = torch.zeros_like(left) if left.grad is None else left.grad
        right_grad = torch.zeros_like(right) if right.grad is None else right.grad
        assert torch.allclose(left_grad, right_grad, atol=1e-6), name


def test_in_bf16_it_is_as_near_to_fp32_as_transformers_is():
    plain = model_of("Bert").eval()
    leaner = copy.deepcopy(plain)
    assert lean(leaner, Noise())
    exact = plain(**batch()).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = (plain(**batch()).logits.float() - exact).abs().max()
        ours = (leaner(**batch()).logits.float() - exact).abs().max()
    assert ours < 3 * theirs + 1e-3


@pytest.mark.parametrize(
    "model",
    [
        lambda: model_of("Bert", is_decoder=True),
        lambda: model_of("Bert", chunk_size_feed_forward=4),
        lambda: transformers.BertForTokenClassification(transformers.BertConfig(**SIZES)),  # reads all tokens
        lambda: transformers.MPNetForSequenceClassification(transformers.MPNetConfig(**SIZES)),  # another attention
        lambda: torch.nn.Linear(2, 2),
    ],
)
def test_other_models_are_left_as_they_are(model):
    made = model()
    before = [type(module) for module in made.modules()]
    assert not lean(made, Noise())
    assert [type(module) for module in made.modules()] == before


def test_a_layout_that_gives_other_numbers_is_left_as_it_is():
    model = model_of("Bert")
    model.bert.encoder.layer[1].attention.output.register_forward_hook(lambda module, given, out: out.flip(-1))
    assert not lean(model, Noise())
    assert type(model.bert.encoder).__name__ == "BertEncoder"
