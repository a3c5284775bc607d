"""BERT and its relatives, read and computed in our own ways: each says what transformers' own model says."""

import copy

import numpy as np
import pytest
import torch
import transformers
from tiny import make_rows

from serve.engines import encoder_onnx, packed
from serve.engines.base import EngineError
from serve.engines.encoder import encoder_of
from serve.engines.encoder_graph import graph_of
from serve.engines.onnx_session import session
from trainer.predictor import Predictor

FAMILIES = ["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra"]


@pytest.fixture(scope="module")
def predictor(tiny_version):
    return Predictor(tiny_version.folder)


@pytest.fixture(scope="module")
def inputs(predictor):
    return predictor.encode({"text": [row[0] for row in make_rows(80, seed=7)]})


def of_family(family, predictor, **more):
    """Return the predictor with a model of that family instead of its own; its weights are random, and far from zero."""
    config = getattr(transformers, f"{family}Config")(
        vocab_size=predictor.model.config.vocab_size,
        hidden_size=48,
        embedding_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_labels=3,
        pad_token_id=predictor.task.pad_id(predictor.contract),
        **more,
    )
    torch.manual_seed(1)
    found = copy.copy(predictor)
    found.model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for weight in found.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return found


def logits_of(predictor, inputs):
    """Return what the model itself says."""
    batch = predictor.task.collate(predictor.contract, inputs)
    with torch.no_grad():
        return predictor.model(**batch).logits.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_what_its_model_does(family, predictor, inputs, tmp_path):
    other = of_family(family, predictor)
    own = logits_of(other, inputs)
    spread = own.max() - own.min()
    assert np.ptp(own, axis=0).min() > 0.1  # the texts are told apart
    for name, near in (("onnx-fp32", 1e-4), ("onnx-int8", 0.1)):
        encoder_onnx.build(name, other, inputs, tmp_path)
        engine = encoder_onnx.load(other, tmp_path)
        assert np.abs(engine.logits(inputs) - own).max() < near * spread, name
        # Alone or beside longer ones: only rounding differs.
        assert np.abs(engine.logits(inputs[:1]) - engine.logits(inputs)[:1]).max() < 1e-3 * spread, name
    packed.build("torch-packed", other, inputs, tmp_path, tmp_path)
    assert np.abs(packed.load("torch-packed", other, tmp_path).logits(inputs) - own).max() < 0.06 * spread


def test_pairs_have_two_kinds_of_token(predictor):
    other = of_family("Bert", predictor)
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    kinds = torch.tensor([[0] * 4 + [1] * 5, [0] * 7 + [1] * 2, [0] * 2 + [1] * 3 + [0] * 4])
    mask = torch.tensor([[1] * 9, [1] * 9, [1] * 5 + [0] * 4])
    with torch.no_grad():
        own = other.model(input_ids=ids, attention_mask=mask, token_type_ids=kinds).logits.numpy()
    computed = session(graph_of(encoder_of(other), pairs=True).SerializeToString(), other)
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
    found = computed.run(None, {name: value.numpy() for name, value in feed.items()})[0]
    assert np.abs(found - own).max() < 1e-4


def test_what_is_not_known_is_refused(predictor, inputs, tmp_path):
    with pytest.raises(EngineError, match="of another kind"):
        encoder_of(of_family("Bert", predictor, hidden_act="relu"))
    other = of_family("Bert", predictor)
    other.model.bert.encoder.layer[0].attention = torch.nn.Identity()
    with pytest.raises(EngineError, match="not as expected: 'Identity' object has no attribute 'self'"):
        encoder_of(other)
    with pytest.raises(EngineError, match="Linear is none of BertForSequenceClassification"):
        other.model = torch.nn.Linear(2, 2)
        encoder_of(other)
    with pytest.raises(EngineError, match="for CPUs"):
        other.device = "cuda"
        encoder_onnx.build("onnx-int8", other, inputs, tmp_path)
    assert list(tmp_path.iterdir()) == []
