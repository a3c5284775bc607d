"""The torch engine beside transformers' own generation, and what it promises under load."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.support.tiny_causal import write_tiny_causal
from trainer.generation.engine import EngineFull, GenerationRequest, SamplingParams, complete_all
from trainer.generation.forward import TransformersForward
from trainer.generation.load import load_engine, model_eos_ids, read_tokenizer
from trainer.generation.torch_engine import EngineOptions, TorchEngine

GREEDY = SamplingParams(max_tokens=16, temperature=0)
OPTIONS = EngineOptions(slots=4, cache_tokens=1600, prompt_tokens=16, idle_prompt_tokens=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_causal(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture
def engine(folder):
    return load_engine(folder, OPTIONS)


def prompts(count=8, longest=150):
    numbers = np.random.default_rng(0)
    return [numbers.integers(3, 400, length).tolist() for length in np.linspace(1, longest, count, dtype=int)]


def requests(params=GREEDY, rows=None):
    return [GenerationRequest(str(index), row, params) for index, row in enumerate(rows or prompts())]


def reference(model, prompt, max_tokens=16):
    output = model.generate(torch.tensor([prompt]), max_new_tokens=max_tokens, do_sample=False, pad_token_id=0)
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("forward", ["fused", "transformers"])
def test_greedy_answers_of_a_batch_are_those_of_transformers(folder, model, engine, forward):
    if forward == "transformers":
        engine = TorchEngine(
            TransformersForward(load_model(folder)), read_tokenizer(folder), model_eos_ids(model), OPTIONS
        )
    answers = complete_all(engine, requests())
    assert [answer.token_ids for answer in answers] == [reference(model, prompt) for prompt in prompts()]
    assert {answer.finish_reason for answer in answers} <= {"stop", "length"}


def load_model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def small_model(kind):
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 100, "initializer_range": 0.2, "max_position_embeddings": 128}
    torch.manual_seed(1)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=100, n_positions=128, initializer_range=0.2
        )
    elif kind == "mistral":
        config = transformers.MistralConfig(**sizes, sliding_window=8)
    elif kind == "gemma":
        config = transformers.Gemma3TextConfig(**sizes, head_dim=8, sliding_window=8)
    else:
        config = transformers.AutoConfig.for_model(kind, **sizes)
    config.eos_token_id = config.bos_token_id = config.pad_token_id = None
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "gemma", "qwen2", "qwen3"])
def test_architectures(kind):
    from trainer.generation.load import make_engine

    model = small_model(kind)
    rows = [[5, 6, 7], list(range(30, 60)), [9]]
    expected = [reference(model, row) for row in rows]
    answers = complete_all(make_engine(model, eos_ids=(), options=OPTIONS), requests(rows=rows))
    assert [answer.token_ids for answer in answers] == expected


def test_a_model_that_the_cache_cannot_hold_is_refused_by_name():
    import transformers

    from cluster.errors import ModelError
    from trainer.generation.forward import cache_shape

    config = transformers.Gemma2Config(hidden_size=32, num_hidden_layers=1, vocab_size=64, intermediate_size=32)
    with pytest.raises(ModelError, match="attn_logit_softcapping"):
        cache_shape(transformers.Gemma2ForCausalLM(config))


def test_answers_do_not_depend_on_the_load(engine):
    params = SamplingParams(max_tokens=12, temperature=0.8, top_p=0.9, seed=7)
    together = complete_all(engine, requests(params))
    alone = [complete_all(engine, [request])[0] for request in requests(params)]
    assert [answer.token_ids for answer in alone] == [answer.token_ids for answer in together]


def test_the_stream_is_the_whole_answer(engine, folder):
    (answer,) = complete_all(engine, requests(SamplingParams(max_tokens=60, seed=3, ignore_eos=True), [[5, 6]]))
    tokens = [token for token in answer.token_ids if token != 2]
    assert answer.text == read_tokenizer(folder).decode(tokens)


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(engine):
    (whole,) = complete_all(engine, requests(rows=[[5, 6, 7]]))
    stop = whole.text[3:5]
    (answer,) = complete_all(engine, requests(dataclasses.replace(GREEDY, stop=(stop, "never")), [[5, 6, 7]]))
    assert answer.text == whole.text[: whole.text.index(stop)] and answer.finish_reason == "stop"


def test_a_cancelled_request_frees_its_slot_and_sends_no_more(engine):
    for request in requests(dataclasses.replace(GREEDY, max_tokens=100)):
        engine.add(request)
    for _ in range(3):
        engine.step()
    engine.cancel("0")
    engine.cancel("7")  # waits
    engine.cancel("unknown")
    events = [event for _ in range(200) for event in engine.step()]
    assert not {event.request_id for event in events} & {"0", "7"}
    assert {event.request_id for event in events if event.finish_reason} >= {"5", "6"}
    assert not engine.has_work and engine.cache.reserved == 0


def test_the_prefix_cache_changes_no_answer_and_is_reported(engine, model):
    shared = prompts()[-1]
    rows = [[*shared, 5], [*shared, 6, 7], [*shared[:70], 9]]
    complete_all(engine, requests(rows=rows[:1]))
    for request in requests(rows=rows[1:]):
        engine.add(request)
    first, tokens = {}, {"0": [], "1": []}
    while engine.has_work:
        for event in engine.step():
            first.setdefault(event.request_id, event.cached_tokens)
            tokens[event.request_id] += event.token_ids
    assert first == {"0": 128, "1": 64}
    assert [tokens["0"], tokens["1"]] == [reference(model, row) for row in rows[1:]]
    assert engine.stats().cached_prompt_tokens == 192


def test_prompts_that_begin_alike_are_computed_once(engine):
    shared = prompts()[-1]
    complete_all(engine, requests(rows=[[*shared, number] for number in range(4)]))
    assert engine.stats().cached_prompt_tokens == 3 * 128


def test_a_small_cache_serves_more_requests_than_it_holds(folder, model):
    engine = load_engine(folder, EngineOptions(slots=4, cache_tokens=200))
    answers = complete_all(engine, requests(rows=prompts(6, 140)))
    assert [answer.token_ids for answer in answers] == [reference(model, prompt) for prompt in prompts(6, 140)]
    assert engine.stats().cache_tokens <= 200


def test_a_long_prompt_does_not_stop_the_others(engine):
    engine.add(GenerationRequest("short", [5, 6], dataclasses.replace(GREEDY, max_tokens=40, ignore_eos=True)))
    engine.step()
    engine.add(GenerationRequest("long", prompts()[-1], GREEDY))
    for _ in range(5):
        assert "short" in {event.request_id for event in engine.step()}


def test_prompt_lookup_saves_steps_and_changes_no_answer(folder, model):
    row = [5, 6, 7, 8, 9] * 8
    steps = {}
    for draft_tokens in (0, 4):
        engine = load_engine(folder, dataclasses.replace(OPTIONS, draft_tokens=draft_tokens))
        engine.add(GenerationRequest("a", row, dataclasses.replace(GREEDY, max_tokens=60, ignore_eos=True)))
        tokens, steps[draft_tokens] = [], 0
        while engine.has_work:
            tokens += [token for event in engine.step() for token in event.token_ids]
            steps[draft_tokens] += 1
        steps[str(draft_tokens)] = tokens
    assert steps["0"] == steps["4"] and steps[4] < steps[0]


def test_scores_and_log_probabilities_are_the_models(engine, model):
    rows = prompts()[1:4]
    engine.add(GenerationRequest("other", [5], dataclasses.replace(GREEDY, max_tokens=5, ignore_eos=True)))
    for row, scores in zip(rows, engine.score(rows), strict=True):
        np.testing.assert_allclose(scores, logprobs_of(model, row), atol=1e-4)
    events = []
    while engine.has_work:
        events += engine.step()
    assert sum(len(event.token_ids) for event in events) == 5

    params = dataclasses.replace(GREEDY, max_tokens=3, logprobs=2, prompt_logprobs=True, ignore_eos=True)
    engine.add(GenerationRequest("a", rows[0], params))
    events = []
    while engine.has_work:
        events += engine.step()
    prompt = [entry.logprob for entry in events[0].prompt_logprobs[1:]]
    np.testing.assert_allclose(prompt, logprobs_of(model, rows[0]), atol=1e-4)
    entries = [entry for event in events for entry in event.logprobs]
    assert all(entry.top[0] == (entry.token_id, pytest.approx(entry.logprob)) for entry in entries)


def logprobs_of(model, row):
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row))).logits[0]
    logprobs = torch.log_softmax(logits, -1)[:-1]
    return logprobs.gather(1, torch.tensor(row[1:])[:, None])[:, 0].numpy()


@pytest.mark.parametrize(
    ("prompt", "changes", "message"),
    [
        ([], {}, "no tokens"),
        ([5] * 500, {}, "at most 512"),
        ([400], {}, "0 to 399"),
        ([5], {"max_tokens": 0}, "max_tokens"),
        ([5], {"grammar": "{"}, "grammar"),
    ],
)
def test_requests_that_cannot_be_answered_are_refused(engine, prompt, changes, message):
    with pytest.raises(ValueError, match=message):
        engine.add(GenerationRequest("a", prompt, dataclasses.replace(GREEDY, **changes)))
    assert not engine.has_work


def test_a_full_engine_says_so(folder):
    engine = load_engine(folder, dataclasses.replace(OPTIONS, max_waiting=1))
    engine.add(GenerationRequest("a", [5], GREEDY))
    with pytest.raises(EngineFull):
        engine.add(GenerationRequest("b", [5], GREEDY))
