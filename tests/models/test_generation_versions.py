"""A registered language model: its engines measured, the choice stored and loaded, and the version exported."""

import json

import pytest

import raymill
from cluster.errors import ModelError, SpecError
from raymill.cli.engine_table import engine_table
from raymill.held_out import load_held_out_rows
from raymill.session import find_version
from serve.engines.choose import optimize_engine
from serve.engines.generation import choose
from serve.engines.generation.choose import load_settings, own_engine
from serve.engines.generation.version_engine import load_version_engine
from serve.engines.selection import current_engine, stored_engine
from support.chat_data import chat_spec, write_chats
from support.llama_cpp import greedy_text, start_llama_cpp
from support.tiny_causal import write_tiny_causal
from trainer.generation.engine import GenerationRequest, SamplingParams, complete_all
from trainer.inference.predictor import Predictor
from trainer.spec.serve import GenerationServeSpec, ServeSpec

pytestmark = pytest.mark.slow

SMALL = GenerationServeSpec(slots=32, cache_tokens=32 * 128)
PROMPT = [1, 300, 301, 302, 303]


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    base = write_tiny_causal(folder / "base")
    spec = chat_spec(base, write_chats(folder / "chats.jsonl", 60), folder)
    train = {"epochs": 12, "tokens_per_step": 256, "learning_rate": 1e-2, "precision": "fp32"}
    raymill.run({**spec, "train": train})
    return folder


@pytest.fixture(scope="module")
def version(storage):
    return find_version("chats", storage)


@pytest.fixture(scope="module")
def predictor(version):
    return Predictor(version.folder)


def answers(engine, **params):
    request = GenerationRequest("a", PROMPT, SamplingParams(max_tokens=12, temperature=0, **params))
    return complete_all(engine, [request])[0].token_ids


def test_the_fastest_engine_that_gives_the_same_probabilities_is_stored_and_loaded(predictor, version, monkeypatch):
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(choose, "candidate_names", lambda device: ["native", "llama-q8_0", "llama-q4_0"])
    spec, lines = ServeSpec(generation=SMALL, max_metric_drop=5.0), []
    assert stored_engine(version, spec).name == current_engine(version, spec).name == "native"
    choice = optimize_engine(version, spec, load_held_out_rows(version), lines.append, timing_s=0.1)
    native, *others = choice["candidates"]
    assert native["agreement"] == 1.0 and native["metric"] == native["own_metric"] and native["rows"] > 10
    assert [each["name"] for each in others] == ["llama-q8_0", "llama-q4_0"]
    for each in choice["candidates"]:
        assert set(each["tokens_per_s"]) == {"1", "8", "32"} and all(each["tokens_per_s"].values())
    assert others[0]["agreement"] > 0.7 and others[0]["metric"] == pytest.approx(native["metric"], abs=0.1)
    assert len(lines) == 5 and any(others[1]["conclusion"] in line for line in lines)
    assert [row[0] for row in engine_table(choice).rows] == ["native", "llama-q8_0", "llama-q4_0"]
    # It is used from now on, for this value of `serve.engine` only.
    assert current_engine(version, spec) == stored_engine(version, spec) == (choice["engine"], choice, None, None)
    assert stored_engine(version, spec.model_copy(update={"engine": "auto-latency"})).name == "native"
    engine = load_version_engine(predictor, version, choice["engine"], choice, load_settings(spec))
    assert len(answers(engine)) <= 12
    engine.close()


def test_an_engine_that_is_named_is_chosen_and_does_not_change_answers_that_it_leaves_to_the_model(predictor, version):
    pytest.importorskip("xllamacpp")
    spec = ServeSpec(engine="llama-q8_0", generation=SMALL)
    assert current_engine(version, spec) is None  # to be measured
    choice = optimize_engine(version, spec, None, lambda line: None, timing_s=0.05)
    assert choice["engine"] == "llama-q8_0" and [each["name"] for each in choice["candidates"]] == [
        "native",
        "llama-q8_0",
    ]
    settings = load_settings(spec)
    engine = load_version_engine(predictor, version, "llama-q8_0", choice, settings)
    own = own_engine(predictor, settings)(False)
    assert answers(engine, frequency_penalty=0.5) == answers(own, frequency_penalty=0.5)
    engine.close()


def test_changed_files_and_unknown_engines_are_refused(predictor, version):
    spec = ServeSpec(engine="llama-q8_0", generation=SMALL)
    choice = current_engine(version, spec).choice
    damaged = {**choice, "built": {**choice["built"], "model.gguf": "0"}}
    with pytest.raises(ModelError, match="have changed"):
        load_version_engine(predictor, version, "llama-q8_0", damaged, load_settings(spec))
    with pytest.raises(ModelError, match="it runs on GPUs only"):
        load_version_engine(predictor, version, "vllm", None, load_settings(spec))
    with pytest.raises(SpecError, match="no engine for this task"):
        load_version_engine(predictor, version, "onnx-fp32", None, load_settings(spec))


def test_a_version_becomes_a_folder_of_transformers(predictor, version, storage, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = raymill.export("chats", "hf", tmp_path / "chats", storage=storage)
    assert result["bytes"] > 10_000 and result["version"] == 1
    folder = tmp_path / "chats"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for name, values in model.state_dict().items():
        assert values.equal(predictor.model.state_dict()[name]), name
    messages = [{"role": "user", "content": "How do I reset password 7?"}]
    request = predictor.encode(predictor.parse([{"messages": messages}]))[0]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == (~request).tolist()


def test_a_version_becomes_a_gguf_file_that_llama_cpp_answers_in_the_same_way(predictor, version, storage, tmp_path):
    pytest.importorskip("xllamacpp")
    raymill.export("chats", "gguf", tmp_path / "chats.gguf", precision="f32", storage=storage)
    prompt = "<|im_start|>user\nHow do I reset password 7?<|im_end|>\n<|im_start|>assistant\n"
    tokenizer = predictor.encoder.rows.tokenizer
    request = GenerationRequest(
        "a", tokenizer.encode(prompt, add_special_tokens=False).ids, SamplingParams(max_tokens=12, temperature=0)
    )
    own = own_engine(predictor, load_settings(ServeSpec(generation=SMALL)))(False)
    expected = complete_all(own, [request])[0].text
    assert greedy_text(start_llama_cpp(tmp_path / "chats.gguf", tmp_path), prompt, 12) == expected


def test_an_export_that_is_not_possible_says_so(storage, tmp_path):
    with pytest.raises(ModelError, match="no single ONNX graph"):
        raymill.export("chats", "onnx", tmp_path / "onnx", storage=storage)
    with pytest.raises(SpecError, match="'safetensors' is no format"):
        raymill.export("chats", "safetensors", tmp_path / "x", storage=storage)
    with pytest.raises(SpecError, match="is for `gguf` only"):
        raymill.export("chats", "hf", tmp_path / "x", precision="f16", storage=storage)
    (tmp_path / "taken").touch()
    with pytest.raises(ModelError, match="exists already"):
        raymill.export("chats", "gguf", tmp_path / "taken", storage=storage)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_replica_takes_the_chosen_engine_and_verifies_it(version):
    """The choice that an earlier test stored, as the settings of an endpoint have it."""
    from serve.generation.load import load_model
    from serve.generation.metrics import GenerationMetrics
    from serve.model.metrics import ReplicaMetrics
    from serve.replica_settings import build_replica_settings

    spec = ServeSpec(engine="llama-q8_0", generation=SMALL, max_metric_drop=5.0)
    selected = current_engine(version, spec)
    settings = build_replica_settings([version], spec, [selected])
    model = load_model(settings.models[0], GenerationMetrics(ReplicaMetrics()))
    try:
        assert model.identity["engine"] == "llama-q8_0" and model.is_alive
        assert type(model.host.engine).__name__ == "FallbackEngine"
    finally:
        model.host.close()
