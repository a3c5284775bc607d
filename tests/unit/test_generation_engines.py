"""Engines of other libraries beside the model's own: the same tokens, texts, ends and log-probabilities."""

import signal
import threading

import numpy as np
import pytest

from serve.engines.generation.catalog import LoadSettings, build_engine, load_engine
from serve.engines.generation.fallback import FallbackEngine
from serve.engines.generation.native_signals import restored_signals
from serve.engines.generation.parameters import unsupported
from support.tiny_causal import write_tiny_causal
from trainer.generation.engine import GenerationRequest, SamplingParams, complete_all
from trainer.generation.load import load_engine as load_own_engine
from trainer.generation.torch_engine import EngineOptions

OPTIONS = EngineOptions(slots=4, cache_tokens=4 * 128)
#: Prompts whose answers are never decided by rounding: the model's two most probable tokens are always far apart.
PROMPTS = [np.random.default_rng(seed).integers(3, 400, size=8 + seed).tolist() for seed in (1, 8, 17, 20, 29, 37)]
#: Keys and values in 16 bits move log-probabilities of these random models by up to 0.01.
CLOSE = 0.03


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_causal(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def own(folder):
    return load_own_engine(folder, OPTIONS)


@pytest.fixture(scope="module", params=["llama-q8_0", "openvino-f16"])
def engine(request, folder, own, tmp_path_factory):
    """An engine with exact weights: for llama.cpp, a file in 32 bits stands where that of 8 bits is expected."""
    from trainer.export.gguf_file import write_gguf

    pytest.importorskip({"llama": "xllamacpp", "openvino": "openvino_genai"}[request.param.partition("-")[0]])
    built = tmp_path_factory.mktemp("built")
    build_engine(request.param, folder, built)
    if request.param.startswith("llama"):
        write_gguf(folder, built / "model.gguf", "f32", has_plain_vocabulary=True)
    loaded = load_engine(request.param, built, LoadSettings(OPTIONS, has_fallback=False), lambda is_int8: own)
    yield loaded
    loaded.close()


def requests(**params):
    settings = {"max_tokens": 20, "temperature": 0, "logprobs": 0, **params}
    return [GenerationRequest(f"r{index}", ids, SamplingParams(**settings)) for index, ids in enumerate(PROMPTS)]


@pytest.mark.slow
def test_no_answer_is_decided_by_rounding(own):
    for answer in complete_all(own, requests(logprobs=2)):
        assert min(entry.top[0][1] - entry.top[1][1] for entry in answer.logprobs) > 2 * CLOSE


@pytest.mark.slow
def test_greedy_answers_are_those_of_the_models_own_engine(engine, own):
    for answer, expected in zip(complete_all(engine, requests()), complete_all(own, requests()), strict=True):
        assert (answer.token_ids, answer.text, answer.finish_reason) == (
            expected.token_ids,
            expected.text,
            expected.finish_reason,
        )
        ours, theirs = ([entry.logprob for entry in side.logprobs] for side in (answer, expected))
        np.testing.assert_allclose(ours, theirs, atol=CLOSE)
    assert not engine.has_work and engine.stats().generated_tokens >= 120


@pytest.mark.slow
def test_stop_strings_end_an_answer_as_in_the_models_own_engine(engine, own):
    text = complete_all(own, requests())[0].text
    stopped = requests(stop=(text[3:5],))
    answers, expected = complete_all(engine, stopped), complete_all(own, stopped)
    assert [(item.text, item.finish_reason) for item in answers] == [(i.text, i.finish_reason) for i in expected]
    assert answers[0].finish_reason == "stop"


@pytest.mark.slow
def test_the_end_of_a_turn_is_reported_with_its_token(engine, own):
    """The model's most probable token is declared its end of turn by the request that follows it."""
    first = complete_all(own, requests(repetition_penalty=1.0))[0].token_ids[0]
    engine._eos_ids = (first,)
    try:
        answer = complete_all(engine, requests()[:1])[0]
    finally:
        engine._eos_ids = (2,)
    assert (answer.token_ids, answer.text, answer.finish_reason) == ([first], "", "stop")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answer_beside_other_requests(engine):
    one = GenerationRequest("one", PROMPTS[0], SamplingParams(max_tokens=12, seed=5, top_p=0.95, top_k=40))
    alone = complete_all(engine, [one])[0].token_ids
    other = GenerationRequest("one", PROMPTS[0], SamplingParams(max_tokens=12, seed=6, top_p=0.95, top_k=40))
    assert complete_all(engine, [*requests()[1:3], one])[-1].token_ids == alone
    assert complete_all(engine, [other])[0].token_ids != alone


@pytest.mark.slow
def test_score_is_the_models_own(engine, own):
    # Turns end within a conversation, and at its end.
    sequences = [*PROMPTS, [*PROMPTS[0], 2, 2, *PROMPTS[1], 2], [5, 2]]
    for ours, theirs in zip(engine.score(sequences), own.score(sequences), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=CLOSE)
    assert engine.score([PROMPTS[0][:1]])[0].shape == (0,)


@pytest.mark.slow
def test_a_cancelled_request_gives_no_events(engine):
    engine.add(GenerationRequest("long", PROMPTS[0], SamplingParams(max_tokens=100, temperature=0, ignore_eos=True)))
    while not engine.step():
        pass
    engine.cancel("long")
    engine.cancel("unknown")
    assert not engine.has_work and engine.step() == []
    assert len(complete_all(engine, requests(ignore_eos=True))) == len(PROMPTS)


@pytest.mark.slow
def test_what_an_engine_does_not_support_is_refused_by_name(engine):
    grammar = GenerationRequest("g", PROMPTS[0], SamplingParams(grammar="{}", prompt_logprobs=True))
    with pytest.raises(ValueError, match="does not support prompt_logprobs, grammar"):
        engine.add(grammar)
    with pytest.raises(ValueError, match=r"9 tokens and the answer up to 1000"):
        engine.add(GenerationRequest("l", PROMPTS[0], SamplingParams(max_tokens=1000)))
    with pytest.raises(ValueError, match="no tokens"):
        engine.add(GenerationRequest("e", [], SamplingParams()))
    assert not engine.has_work


@pytest.mark.slow
def test_the_models_own_engine_does_what_the_fast_one_does_not(engine, own):
    loaded = []

    def load_own():
        loaded.append(True)
        return own

    both = FallbackEngine(engine, {"max_tokens", "temperature", "logprobs"}, load_own, max_length=own.max_length)
    complete_all(both, requests())
    assert not loaded
    mixed = [*requests()[:2], *[item for item in requests(frequency_penalty=0.5) if item.id > "r1"]]
    expected = complete_all(own, mixed)
    assert [item.token_ids for item in complete_all(both, mixed)] == [item.token_ids for item in expected]
    assert loaded == [True] and not both.has_work
    both.add(requests(min_p=0.1)[0])
    both.cancel("r0")
    assert not both.has_work and both.step() == []


def test_parameters_at_their_defaults_are_never_unsupported():
    assert unsupported(GenerationRequest("r", [1], SamplingParams()), ()) == []
    request = GenerationRequest("r", [1], SamplingParams(temperature=0, logprobs=3, grammar="{}"), adapter="a")
    assert unsupported(request, {"temperature", "logprobs"}) == ["grammar", "adapter", "logprobs above 0"]


def test_signal_handlers_are_restored_in_any_thread():
    handled = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    try:

        def replace():
            with restored_signals(signal.SIGUSR1):
                import ctypes

                ctypes.CDLL(None).signal(int(signal.SIGUSR1), None)

        thread = threading.Thread(target=replace)
        thread.start()
        thread.join()
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1]


@pytest.mark.slow
def test_vllm_answers_as_the_models_own_engine(folder, own, tmp_path):
    pytest.importorskip("vllm")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    build_engine("vllm", folder, tmp_path)
    settings = LoadSettings(OPTIONS, device="cuda", has_fallback=False)
    fast = load_engine("vllm", tmp_path, settings, lambda is_int8: own)
    for ours, theirs in zip(fast.score(PROMPTS), own.score(PROMPTS), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.1)
    assert len(complete_all(fast, requests())) == len(PROMPTS)
    fast.close()
