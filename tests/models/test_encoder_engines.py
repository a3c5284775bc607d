"""Our own engines for BERT and its relatives: each computes what transformers' own model computes."""

import copy

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper

from serve.engines import packed
from serve.engines.base import EngineError
from serve.engines.encoder_weights import read_encoder
from serve.engines.onnx import encoder_engine
from serve.engines.onnx import engine as onnx_engine
from serve.engines.onnx.encoder_graph import build_graph
from serve.engines.onnx.session import SESSION_CONFIG, create_session
from support.tiny_text import make_text_rows
from trainer.inference.predictor import Predictor

FAMILIES = ["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra"]


@pytest.fixture(autouse=True)
def exact_int8_sums(monkeypatch):
    """Make int8 products exact on every CPU: one without VNNI uses ONNX Runtime's slower product of two uint8 factors.

    Without it, such a CPU saturates the sums and `build` rejects the int8 graph, so the graph could not be tested there.
    """
    monkeypatch.setitem(SESSION_CONFIG, "session.x64quantprecision", "1")


@pytest.fixture(scope="module")
def predictor(tiny_version):
    return Predictor(tiny_version.folder)


@pytest.fixture(scope="module")
def inputs(predictor):
    return predictor.encode({"text": [row[0] for row in make_text_rows(80, seed=7)]})


def with_family(family, predictor, **changes):
    """Return a copy of the predictor with a model of that family, whose weights are random and far from zero."""
    config = getattr(transformers, f"{family}Config")(
        vocab_size=predictor.model.config.vocab_size,
        hidden_size=48,
        embedding_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_labels=3,
        pad_token_id=predictor.task.pad_id(predictor.contract),
        **changes,
    )
    torch.manual_seed(1)
    changed = copy.copy(predictor)
    changed.model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for weight in changed.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return changed


def reference_logits(predictor, inputs):
    """Return the logits of the model itself."""
    batch = predictor.task.collate(predictor.contract, inputs)
    with torch.no_grad():
        return predictor.model(**batch).logits.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_engine_computes_what_the_model_of_its_family_does(family, predictor, inputs, tmp_path):
    other = with_family(family, predictor)
    own = reference_logits(other, inputs)
    spread = own.max() - own.min()
    assert np.ptp(own, axis=0).min() > 0.1  # the logits differ between texts
    for name, tolerance in (("onnx-fp32", 1e-4), ("onnx-int8", 0.1)):
        encoder_engine.build(name, other, inputs, tmp_path)
        engine = encoder_engine.load(other, tmp_path)
        assert np.abs(engine.logits(inputs) - own).max() < tolerance * spread, name
        # A text alone or beside longer ones: only rounding differs.
        assert np.abs(engine.logits(inputs[:1]) - engine.logits(inputs)[:1]).max() < 1e-3 * spread, name
    packed.build("torch-packed", other, inputs, tmp_path, tmp_path)
    assert np.abs(packed.load("torch-packed", other, tmp_path).logits(inputs) - own).max() < 0.06 * spread


@pytest.mark.parametrize("family", ["Bert", "XLMRoberta"])
def test_a_text_that_contains_the_padding_token(family, predictor, inputs, tmp_path):
    """RoBERTa's position ids skip the padding token, BERT's do not."""
    other = with_family(family, predictor)
    pad = predictor.task.pad_id(predictor.contract)
    odd = [np.insert(ids, [1, 3], pad) for ids in inputs]
    own = reference_logits(other, odd)
    encoder_engine.build("onnx-fp32", other, inputs, tmp_path)
    for engine in (encoder_engine.load(other, tmp_path), packed.load("torch-packed", other, tmp_path)):
        tolerance = 1e-4 if isinstance(engine, encoder_engine.OnnxEncoderEngine) else 0.06
        assert np.abs(engine.logits(odd) - own).max() < tolerance * np.ptp(own)


@pytest.mark.parametrize("length", [1, 64])
def test_texts_of_one_token_and_of_all_positions(length, predictor, inputs, tmp_path):
    other = with_family("Bert", predictor, max_position_embeddings=64)
    encoder_engine.build("onnx-fp32", other, inputs, tmp_path)
    rows = [np.resize(ids, length) for ids in inputs[:3]]
    assert np.abs(encoder_engine.load(other, tmp_path).logits(rows) - reference_logits(other, rows)).max() < 1e-3


def test_two_threads_compute_what_one_does(predictor, inputs, tmp_path):
    other = with_family("Bert", predictor)
    encoder_engine.build("onnx-int8", other, inputs, tmp_path)
    single = encoder_engine.load(other, tmp_path).logits(inputs)
    other.threads = 2
    assert np.abs(encoder_engine.load(other, tmp_path).logits(inputs) - single).max() < 1e-3


def with_collate(task, change):
    """Return a copy of the task that applies `change` to its batches."""
    changed = copy.copy(task)
    changed.collate = lambda contract, inputs: change(task.collate(contract, inputs))
    return changed


def add_token_types(batch):
    """Give tokens from the fourth on the second type."""
    ids = batch["input_ids"]
    return {**batch, "token_type_ids": (torch.arange(ids.shape[1]) > 2).expand_as(ids).long()}


def test_the_graph_takes_the_token_types_of_the_tasks_batches(predictor, inputs, tmp_path):
    other = with_family("Bert", predictor)
    other.task = with_collate(predictor.task, add_token_types)
    own = reference_logits(other, inputs)
    for name, tolerance in (("onnx-fp32", 1e-4), ("onnx-int8", 0.1)):
        encoder_engine.build(name, other, inputs, tmp_path)
        assert np.abs(encoder_engine.load(other, tmp_path).logits(inputs) - own).max() < tolerance * np.ptp(own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: {"input_ids": batch["input_ids"]}, r"batches: input_ids \(torch.int64\)$"),
        (lambda batch: {**batch, "position_ids": batch["input_ids"]}, "position_ids"),
        (lambda batch: {**batch, "attention_mask": batch["attention_mask"].bool()}, r"attention_mask \(torch.bool\)"),
    ],
)
def test_batches_that_the_graph_does_not_take_are_rejected(change, message, predictor, inputs, tmp_path):
    other = with_family("Bert", predictor)
    other.task = with_collate(predictor.task, change)
    with pytest.raises(EngineError, match=message):
        encoder_engine.build("onnx-int8", other, inputs, tmp_path)


def test_a_graph_that_computes_something_else_is_not_quantized(predictor, inputs, tmp_path, monkeypatch):
    other = with_family("Bert", predictor)
    weights = read_encoder(other)
    monkeypatch.setattr(
        encoder_engine, "read_encoder", lambda _: weights._replace(token_types=weights.token_types.flip(0))
    )
    with pytest.raises(EngineError, match="it changes logits by"):
        encoder_engine.build("onnx-int8", other, inputs, tmp_path)
    monkeypatch.setattr(encoder_engine, "read_encoder", lambda _: weights._replace(layers=[]))
    with pytest.raises(EngineError, match="no graph can be built from this model|it changes logits by"):
        encoder_engine.build("onnx-int8", other, inputs, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_exact_int8_sums_weights_have_seven_bits(predictor, inputs, tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(encoder_engine, "has_exact_int8_sums", lambda predictor: False)
    note = onnx_engine.build("onnx-int8", predictor, inputs, tmp_path, scratch)
    assert note == "exported by torch: this CPU saturates int8 sums (it has no VNNI)"
    initializers = onnx.load(str(tmp_path / onnx_engine.GRAPH)).graph.initializer
    arrays = [numpy_helper.to_array(tensor) for tensor in initializers]
    weights = [array for array in arrays if array.dtype == np.int8 and array.ndim == 2]
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 64


def test_pairs_have_two_token_types(predictor):
    other = with_family("Bert", predictor)
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    types = torch.tensor([[0] * 4 + [1] * 5, [0] * 7 + [1] * 2, [0] * 2 + [1] * 3 + [0] * 4])
    mask = torch.tensor([[1] * 9, [1] * 9, [1] * 5 + [0] * 4])
    with torch.no_grad():
        own = other.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits.numpy()
    session = create_session(build_graph(read_encoder(other), token_types=True).SerializeToString(), other)
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    logits = session.run(None, {name: value.numpy() for name, value in feed.items()})[0]
    assert np.abs(logits - own).max() < 1e-4


def test_unknown_models_are_rejected(predictor, inputs, tmp_path):
    for odd in ({"hidden_act": "relu"}, {"is_decoder": True}):
        with pytest.raises(EngineError, match="options that this engine does not support"):
            read_encoder(with_family("Bert", predictor, **odd))
    other = with_family("Bert", predictor)
    other.model.bert.encoder.layer[0].attention = torch.nn.Identity()
    with pytest.raises(EngineError, match="not as expected: 'Identity' object has no attribute 'self'"):
        read_encoder(other)
    with pytest.raises(EngineError, match="Linear is not one of BertForSequenceClassification"):
        other.model = torch.nn.Linear(2, 2)
        read_encoder(other)
    with pytest.raises(EngineError, match="on CPUs only"):
        other.device = "cuda"
        encoder_engine.build("onnx-int8", other, inputs, tmp_path)
    assert list(tmp_path.iterdir()) == []
