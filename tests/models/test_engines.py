"""Engines on the tiny model: they answer as the model does, the fastest good one is chosen, a damaged one is not loaded."""

import shutil

import numpy as np
import onnx
import pytest
import torch

from cluster.errors import ModelError, SpecError
from serve.engines import benchmark, choose, engine_store
from serve.engines.base import EngineError, split_by_length
from serve.engines.benchmark import Benchmark, HeldOut
from serve.engines.catalog import build_engine, load_engine
from serve.engines.choose import load_chosen_engine, optimize_engine, select_engine
from serve.engines.onnx import encoder_engine
from serve.engines.onnx import engine as onnx_engine
from serve.engines.onnx.encoder_engine import has_exact_int8_sums
from serve.engines.onnx.session import SESSION_CONFIG
from serve.engines.onnx.smoothing import smooth_quant
from serve.engines.selection import current_engine, stored_engine
from support.tiny_text import make_text_rows
from trainer.inference.predictor import Predictor
from trainer.spec.serve import ServeSpec

TEXTS = [row[0] for row in make_text_rows(60, seed=5)]
# Long enough for every batch to be timed a few times.
TIMING_S = 0.1


@pytest.fixture(scope="module")
def version(tiny_version):
    return tiny_version


@pytest.fixture(scope="module")
def predictor(version):
    return Predictor(version.folder)


@pytest.fixture(scope="module")
def inputs(predictor):
    return predictor.encode({"text": TEXTS})


@pytest.mark.parametrize("name", ["torch-packed", "onnx-fp32", "onnx-int8", "openvino-bf16", "openvino-int8"])
def test_an_engine_answers_as_the_model_does(name, predictor, inputs, scratch, tmp_path):
    others = predictor.encode({"text": [row[0] for row in make_text_rows(100, seed=6)]})
    note = build_engine(name, predictor, others, tmp_path, scratch)
    # int8 has its own graph where its sums are exact, and on every other CPU the exporter's graph with 7-bit weights.
    assert bool(note) is (name == "onnx-int8" and not has_exact_int8_sums(predictor))
    engine = load_engine(name, predictor, tmp_path)
    own = predictor.scores(inputs)
    tolerance = 1e-4 if name == "onnx-fp32" else 0.1
    for rows in (inputs, inputs[:1], inputs[::-1], [inputs[3], inputs[3]]):
        scores = predictor.task.target.scores(predictor.contract.fitted, engine.logits(rows))
        expected = predictor.scores(rows)
        assert np.abs(scores - expected).max() < tolerance
        assert (scores.argmax(1) == expected.argmax(1)).mean() > 0.95
    assert own.shape == (60, 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ["native", "torch-bf16", "onnx-fp32"])
def test_an_engine_answers_on_a_gpu_as_the_model_does_on_a_cpu(name, predictor, version, inputs, scratch, tmp_path):
    on_gpu = Predictor(version.folder, device="cuda")
    if name.startswith("onnx"):
        onnxruntime = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime has no CUDA")
    build_engine(name, on_gpu, inputs, tmp_path, scratch / "gpu")
    scores = on_gpu.task.target.scores(on_gpu.contract.fitted, load_engine(name, on_gpu, tmp_path).logits(inputs))
    assert np.abs(scores - predictor.scores(inputs)).max() < (0.1 if name == "torch-bf16" else 1e-3)


def test_a_smoothed_graph_computes_the_same(predictor, inputs, scratch, tmp_path):
    graph = tmp_path / onnx_engine.GRAPH
    shutil.copy(onnx_engine.export_model(predictor, inputs, scratch), graph)
    before = load_engine("onnx-fp32", predictor, tmp_path).logits(inputs)
    nodes = len(onnx.load(str(graph)).graph.node)
    smooth_quant(graph, onnx_engine.graph_inputs(predictor, inputs[:20], graph))
    assert len(onnx.load(str(graph)).graph.node) > nodes
    assert np.abs(load_engine("onnx-fp32", predictor, tmp_path).logits(inputs) - before).max() < 1e-4


def test_few_rows_are_not_enough_for_scales(predictor, inputs, scratch, tmp_path):
    with pytest.raises(EngineError, match="needs 64 rows, but there are only 60"):
        encoder_engine.build("onnx-int8", predictor, inputs, tmp_path)
    note = build_engine("onnx-int8", predictor, inputs, tmp_path, scratch)
    assert note == "exported by torch: int8 calibration needs 64 rows, but there are only 60"
    assert [path.name for path in tmp_path.iterdir()] == [onnx_engine.GRAPH]
    engine, target = load_engine("onnx-int8", predictor, tmp_path), predictor.task.target
    scores = target.scores(predictor.contract.fitted, engine.logits(inputs))
    assert np.abs(scores - predictor.scores(inputs)).max() < 0.1


def test_a_batch_is_split_where_that_saves_more_padding_than_a_call_costs():
    assert sorted(map(sorted, split_by_length([3, 40, 3, 41], 16))) == [[0, 2], [1, 3]]
    assert split_by_length([5, 5, 5], 16) == [[0, 1, 2]]
    assert len(split_by_length([3, 4, 5, 6], 1000)) == 1
    generator = np.random.default_rng(0)
    for _ in range(20):
        lengths = generator.integers(1, 60, 24).tolist()
        groups = split_by_length(lengths, 16)
        assert sorted(row for group in groups for row in group) == list(range(24))
        cost = sum(len(group) * max(lengths[row] for row in group) + 16 for group in groups)
        assert cost <= 24 * max(lengths) + 16


def held_out_rows(predictor, version, count=60):
    rows = make_text_rows(count, seed=5)
    labels = predictor.contract.fitted["labels"]
    return HeldOut(
        {"text": [row[0] for row in rows]}, np.array([labels.index(row[1]) for row in rows]), "macro_f1", True, 15
    )


def test_the_fastest_engine_that_keeps_the_metric_is_stored_with_its_measurements(predictor, version, monkeypatch):
    monkeypatch.setitem(SESSION_CONFIG, "session.x64quantprecision", "1")  # exact int8 sums on CPUs without VNNI, too
    monkeypatch.setattr(choose, "_candidate_names", lambda predictor, device: ["torch-packed", "onnx-int8"])
    lines = []
    choice = optimize_engine(
        version, ServeSpec(), held_out_rows(predictor, version, 140), lines.append, timing_s=TIMING_S
    )
    by_name = {entry["name"]: entry for entry in choice["candidates"]}
    assert set(by_name) == {"native", "torch-packed", "onnx-int8"}
    assert not by_name["onnx-int8"]["note"]  # half of the rows are enough for its scales
    chosen = by_name[choice["engine"]]
    assert chosen["metric"] is not None and not chosen["refused"]
    assert chosen["rows_per_s"] >= by_name["native"]["rows_per_s"]
    assert chosen["rows"] == 70 and chosen["changed"] <= 1 and chosen["own_metric"] > 0.9
    assert len(lines) >= 4 and any(chosen["conclusion"] in line for line in lines)
    # It is reused, but only for this checkpoint, hardware and tolerance.
    again = select_engine(version, ServeSpec(), lambda: pytest.fail("measured again"), lines.append)
    assert again == current_engine(version, ServeSpec()) == (choice["engine"], choice, None, None)
    assert current_engine(version, ServeSpec(max_metric_drop=9)) is None
    assert stored_engine(version, ServeSpec(max_metric_drop=9)) == (choice["engine"], choice, None, None)
    # Without a choice for these threads, the model itself answers until one is stored.
    other = stored_engine(version, ServeSpec(cpus_per_replica=7))
    assert other[:2] == ("native", None) and other.awaited.name == "choice.json" and not other.awaited.is_file()
    # The fastest engine for a single row is a separate choice.
    assert stored_engine(version, ServeSpec(engine="auto-latency"))[:2] == ("native", None)
    few = held_out_rows(predictor, version)
    choice = optimize_engine(version, ServeSpec(engine="auto-latency"), few, lines.append, timing_s=TIMING_S)
    assert any("int8 calibration needs 64 rows, but there are only 30" in line for line in lines)
    eligible = [entry for entry in choice["candidates"] if entry["metric"] is not None and not entry["refused"]]
    assert choice["engine"] == min(eligible, key=lambda entry: entry["single_ms"])["name"]
    assert stored_engine(version, ServeSpec(engine="auto-latency"))[:2] == (choice["engine"], choice)


def test_an_engine_that_loses_too_much_is_not_chosen(predictor, version, monkeypatch):
    monkeypatch.setattr(choose, "_candidate_names", lambda predictor, device: ["torch-packed"])
    monkeypatch.setattr(choose, "_batch_speed", lambda candidate: candidate.name == "torch-packed")
    check_scores = Benchmark.check_scores

    def worse(self, candidate, scores, tolerance):
        scores = scores.copy()
        scores[:3] = scores[:3, [1, 2, 0]]  # three wrong answers
        return check_scores(self, candidate, scores, tolerance)

    monkeypatch.setattr(Benchmark, "check_scores", worse)
    rows = held_out_rows(predictor, version)

    def choice(max_metric_drop):
        spec = ServeSpec(max_metric_drop=max_metric_drop)
        return optimize_engine(version, spec, rows, lambda text: None, timing_s=TIMING_S)

    refused = choice(0.3)
    assert refused["engine"] == "native"
    assert "it loses more than serve.max_metric_drop" in refused["candidates"][1]["refused"]
    assert "macro_f1 0.8" in refused["candidates"][1]["refused"] and refused["candidates"][1]["changed"] == 3
    assert choice(20)["engine"] == "torch-packed"


def test_without_held_out_rows_only_an_engine_with_the_same_scores_may_be_chosen(version, monkeypatch):
    monkeypatch.setattr(choose, "_candidate_names", lambda predictor, device: ["torch-packed"])
    monkeypatch.setattr(choose, "_batch_speed", lambda candidate: candidate.name == "torch-packed")
    monkeypatch.setattr(benchmark, "_SAME_SCORE", -1.0)
    choice = optimize_engine(version, ServeSpec(), None, lambda text: None, timing_s=TIMING_S)
    assert choice["engine"] == "native"
    assert "no held-out rows" in choice["candidates"][1]["refused"]


def test_a_choice_that_fails_leaves_no_files(version, monkeypatch):
    def fails(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(choose, "_check_fastest", fails)
    spec = ServeSpec(engine="onnx-fp32", cpus_per_replica=3)
    with pytest.raises(KeyboardInterrupt):
        optimize_engine(version, spec, None, lambda text: None, timing_s=TIMING_S)
    folder = choose.engine_store.engine_folder(version, choose.hardware_of(spec))
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_damaged_or_unknown_engine_is_rejected(predictor, version):
    choice = optimize_engine(version, ServeSpec(engine="onnx-fp32"), None, lambda text: None, timing_s=TIMING_S)
    built = engine_store.engine_folder(version, choice["hardware"]) / choice["folder"]
    assert current_engine(version, ServeSpec(engine="onnx-fp32")).choice == choice
    assert load_chosen_engine(predictor, version, "onnx-fp32", choice).logits(
        predictor.encode({"text": ["my dog"]})
    ).shape == (1, 3)
    graph = built / encoder_engine.GRAPH
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="have changed since the engine was measured"):
        load_chosen_engine(predictor, version, "onnx-fp32", choice)
    with pytest.raises(SpecError, match="did you mean 'onnx-int8'"):
        load_engine("onnx-int9", predictor, built)
    with pytest.raises(EngineError):
        load_engine("torch-bf16", type("Trees", (), {"model": object(), "task": predictor.task})(), built)
