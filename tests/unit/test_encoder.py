"""BERT and its relatives, read and computed in our own ways: each says what transformers' own model says."""

import copy

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper

from serve.engines import packed
from serve.engines.base import EngineError
from serve.engines.encoder_weights import encoder_of
from serve.engines.onnx import encoder_engine
from serve.engines.onnx import engine as onnx_engine
from serve.engines.onnx.encoder_graph import graph_of
from serve.engines.onnx.session import session
from support.tiny_text import make_text_rows
from trainer.inference.predictor import Predictor

FAMILIES = ["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra"]


@pytest.fixture(scope="module")
def predictor(tiny_version):
    return Predictor(tiny_version.folder)


@pytest.fixture(scope="module")
def inputs(predictor):
    return predictor.encode({"text": [row[0] for row in make_text_rows(80, seed=7)]})


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
        encoder_engine.build(name, other, inputs, tmp_path)
        engine = encoder_engine.load(other, tmp_path)
        assert np.abs(engine.logits(inputs) - own).max() < near * spread, name
        # Alone or beside longer ones: only rounding differs.
        assert np.abs(engine.logits(inputs[:1]) - engine.logits(inputs)[:1]).max() < 1e-3 * spread, name
    packed.build("torch-packed", other, inputs, tmp_path, tmp_path)
    assert np.abs(packed.load("torch-packed", other, tmp_path).logits(inputs) - own).max() < 0.06 * spread


@pytest.mark.parametrize("family", ["Bert", "XLMRoberta"])
def test_a_text_that_contains_the_padding_token(family, predictor, inputs, tmp_path):
    """RoBERTa's positions leave it out, BERT's do not."""
    other = of_family(family, predictor)
    pad = predictor.task.pad_id(predictor.contract)
    odd = [np.insert(ids, [1, 3], pad) for ids in inputs]
    own = logits_of(other, odd)
    encoder_engine.build("onnx-fp32", other, inputs, tmp_path)
    for engine in (encoder_engine.load(other, tmp_path), packed.load("torch-packed", other, tmp_path)):
        near = 1e-4 if isinstance(engine, encoder_engine.OnnxEncoder) else 0.06
        assert np.abs(engine.logits(odd) - own).max() < near * np.ptp(own)


@pytest.mark.parametrize("length", [1, 64])
def test_one_token_and_as_many_as_there_are_positions(length, predictor, inputs, tmp_path):
    other = of_family("Bert", predictor, max_position_embeddings=64)
    encoder_engine.build("onnx-fp32", other, inputs, tmp_path)
    rows = [np.resize(ids, length) for ids in inputs[:3]]
    assert np.abs(encoder_engine.load(other, tmp_path).logits(rows) - logits_of(other, rows)).max() < 1e-3


def test_two_threads_say_what_one_does(predictor, inputs, tmp_path):
    other = of_family("Bert", predictor)
    encoder_engine.build("onnx-int8", other, inputs, tmp_path)
    one = encoder_engine.load(other, tmp_path).logits(inputs)
    other.threads = 2
    assert np.abs(encoder_engine.load(other, tmp_path).logits(inputs) - one).max() < 1e-3


def given(task, change):
    """Return a task whose `collate` is another."""
    found = copy.copy(task)
    found.collate = lambda contract, inputs: change(task.collate(contract, inputs))
    return found


def with_kinds(batch):
    """Tokens from the fourth on are of the second kind."""
    ids = batch["input_ids"]
    return {**batch, "token_type_ids": (torch.arange(ids.shape[1]) > 2).expand_as(ids).long()}


def test_what_the_task_gives_its_model_is_what_the_graph_takes(predictor, inputs, tmp_path):
    other = of_family("Bert", predictor)
    other.task = given(predictor.task, with_kinds)
    own = logits_of(other, inputs)
    for name, near in (("onnx-fp32", 1e-4), ("onnx-int8", 0.1)):
        encoder_engine.build(name, other, inputs, tmp_path)
        assert np.abs(encoder_engine.load(other, tmp_path).logits(inputs) - own).max() < near * np.ptp(own)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda batch: {"input_ids": batch["input_ids"]}, r"it input_ids \(torch.int64\)$"),
        (lambda batch: {**batch, "position_ids": batch["input_ids"]}, "position_ids"),
        (lambda batch: {**batch, "attention_mask": batch["attention_mask"].bool()}, r"attention_mask \(torch.bool\)"),
    ],
)
def test_what_the_graph_does_not_take_is_refused(change, told, predictor, inputs, tmp_path):
    other = of_family("Bert", predictor)
    other.task = given(predictor.task, change)
    with pytest.raises(EngineError, match=told):
        encoder_engine.build("onnx-int8", other, inputs, tmp_path)


def test_a_graph_that_computes_something_else_is_not_made_int8(predictor, inputs, tmp_path, monkeypatch):
    other = of_family("Bert", predictor)
    read = encoder_of(other)
    monkeypatch.setattr(encoder_engine, "encoder_of", lambda _: read._replace(kinds=read.kinds.flip(0)))
    with pytest.raises(EngineError, match="it moves logits by"):
        encoder_engine.build("onnx-int8", other, inputs, tmp_path)
    monkeypatch.setattr(encoder_engine, "encoder_of", lambda _: read._replace(layers=[]))
    with pytest.raises(EngineError, match="no graph can be made of it|it moves logits by"):
        encoder_engine.build("onnx-int8", other, inputs, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_whole_sums_of_bytes_weights_have_seven_bits(predictor, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_engine, "multiplies_whole", lambda predictor: False)
    (tmp_path / "scratch").mkdir()
    note = onnx_engine.build("onnx-int8", predictor, inputs, tmp_path, tmp_path / "scratch")
    assert note == "the exporter's graph: this CPU cuts off sums of bytes"
    weights = [numpy_helper.to_array(one) for one in onnx.load(str(tmp_path / onnx_engine.GRAPH)).graph.initializer]
    assert max(np.abs(one.astype(int)).max() for one in weights if one.dtype == np.int8 and one.ndim == 2) == 64


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
    for odd in ({"hidden_act": "relu"}, {"is_decoder": True}):
        with pytest.raises(EngineError, match="of another kind"):
            encoder_of(of_family("Bert", predictor, **odd))
    other = of_family("Bert", predictor)
    other.model.bert.encoder.layer[0].attention = torch.nn.Identity()
    with pytest.raises(EngineError, match="not as expected: 'Identity' object has no attribute 'self'"):
        encoder_of(other)
    with pytest.raises(EngineError, match="Linear is none of BertForSequenceClassification"):
        other.model = torch.nn.Linear(2, 2)
        encoder_of(other)
    with pytest.raises(EngineError, match="for CPUs"):
        other.device = "cuda"
        encoder_engine.build("onnx-int8", other, inputs, tmp_path)
    assert list(tmp_path.iterdir()) == []
