"""The leaner encoder gives the logits and gradients of transformers' own for every supported model."""

import copy

import numpy as np
import pytest
import torch
import transformers

from trainer.optim.bert.dropout import RowMasks, install_row_dropout, make_row_keys
from trainer.optim.bert.encoder import BertLayers, install_bert_layers
from trainer.optim.flat_updater import FlatUpdater
from trainer.spec.train import TrainSpec

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


def run_pass(model, labels, updater=None):
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
    keys = make_row_keys(1, 1, 1, np.arange(5))
    results = []
    for by_hand in (False, True):
        model = model_of(kind).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout
        masks = install_row_dropout(model)
        layers = install_bert_layers(model, masks)
        updater = FlatUpdater(
            model, TrainSpec(learning_rate=5e-5, warmup_fraction=0.1), 10, 1, layers.direct_parameters(), torch.float32
        )
        if by_hand:
            layers.attach(updater)
        else:
            for value in layers.parameters():  # autograd accumulates these gradients
                value.grad = None
        masks.set_rows(keys)
        loss, gradients = run_pass(model, torch.tensor([0, 1, 2, 1, 0]), updater if by_hand else None)
        results.append((loss, gradients))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    for name, theirs in results[0][1].items():
        theirs = torch.zeros_like(results[1][1][name]) if theirs is None else theirs
        assert torch.allclose(results[1][1][name], theirs, atol=1e-6), name


def test_frozen_and_nonstandard_layers_run_by_autograd():
    frozen = model_of("Bert")
    frozen.bert.encoder.layer[0].output.dense.weight.requires_grad_(False)
    assert install_bert_layers(frozen, install_row_dropout(frozen)).direct_parameters() == []
    other = model_of("Bert", hidden_act="relu")
    assert install_bert_layers(other, install_row_dropout(other)).direct_parameters() == []


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_the_models_own(kind):
    plain = model_of(kind).train()
    ours = copy.deepcopy(plain)
    assert install_bert_layers(ours, install_row_dropout(ours))
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


def test_in_bf16_it_is_as_close_to_fp32_as_transformers():
    plain = model_of("Bert").eval()
    leaner = copy.deepcopy(plain)
    assert install_bert_layers(leaner, RowMasks())
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
def test_other_models_are_not_changed(model):
    module = model()
    before = [type(part) for part in module.modules()]
    assert not install_bert_layers(module, RowMasks())
    assert [type(part) for part in module.modules()] == before


def test_a_model_with_other_numbers_is_not_changed():
    model = model_of("Bert")
    model.bert.encoder.layer[1].attention.output.register_forward_hook(lambda module, inputs, output: output.flip(-1))
    assert not install_bert_layers(model, RowMasks())
    assert type(model.bert.encoder).__name__ == "BertEncoder"
