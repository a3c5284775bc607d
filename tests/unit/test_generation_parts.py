"""The parts of the engine: sampling, text, grammars, adapters, int8, prefixes, and drafts."""

import json

import numpy as np
import pytest
import torch

from cluster.errors import ModelError
from tests.support.tiny_causal import write_tiny_causal, write_tiny_tokenizer
from trainer.generation.cache import CacheShape, KeyValueCache
from trainer.generation.engine import GenerationRequest, SamplingParams, complete_all
from trainer.generation.grammar import lark_grammar, object_grammar, regex_grammar, schema_grammar
from trainer.generation.int8 import Int8Embedding, Int8Linear, has_int8
from trainer.generation.load import load_engine, read_tokenizer
from trainer.generation.lookup import PromptLookup
from trainer.generation.prefixes import BLOCK, PrefixCache
from trainer.generation.product import Product
from trainer.generation.sampling import TokenSampler
from trainer.generation.text import StopStrings, TokenText
from trainer.generation.torch_engine import EngineOptions

LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0, -3.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_causal(tmp_path_factory.mktemp("model"))


def shares(params, logits=LOGITS, count=1500):
    sampler = TokenSampler(params, [])
    return np.bincount([sampler.choose(logits) for _ in range(count)], minlength=len(logits)) / count


@pytest.mark.parametrize(
    ("changes", "kept_ids"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"temperature": 0.5}, [0, 1, 2, 3, 4, 5]),
        ({"top_k": 2}, [0, 1]),
        ({"top_p": 0.6}, [0, 1]),
        ({"top_p": 1e-9}, [0]),
        ({"min_p": 0.3}, [0, 1, 2]),
        ({"top_k": 3, "top_p": 0.8}, [0, 1]),
    ],
)
def test_tokens_are_drawn_by_their_probabilities(changes, kept_ids):
    weights = torch.softmax(LOGITS / changes.get("temperature", 1.0), -1).numpy()
    expected = np.where(np.isin(np.arange(6), kept_ids), weights, 0)
    np.testing.assert_allclose(shares(SamplingParams(seed=1, **changes)), expected / expected.sum(), atol=0.04)


def test_all_candidates_are_sorted_where_the_first_do_not_hold_top_p():
    flat = torch.zeros(2000)
    assert len(np.flatnonzero(shares(SamplingParams(top_p=0.9), flat, 1500))) > 600


def test_penalties_and_bias_change_the_choice():
    def choice(prompt=(), generated=(), **changes):
        sampler = TokenSampler(SamplingParams(temperature=0, **changes), prompt)
        for token in generated:
            sampler.note(token)
        return sampler.choose(LOGITS)

    assert choice() == 0
    assert choice(logit_bias={5: 100.0}) == 5
    assert choice(generated=[0], presence_penalty=1.0) == 1
    assert choice(prompt=[0], presence_penalty=1.0) == 0
    assert choice(generated=[0, 0], frequency_penalty=0.3) == 1
    assert choice(prompt=[0], repetition_penalty=2.0) == 1
    assert choice(logit_bias={0: -100.0}) == 1


def test_text_waits_for_whole_characters(folder):
    tokenizer = read_tokenizer(folder)
    ids = tokenizer.encode("a € 漢 b").ids
    text = TokenText(tokenizer)
    parts = [text.add(token) for token in ids]
    assert "".join(parts) == "a € 漢 b" and "\ufffd" not in "".join(parts) and "" in parts
    half = TokenText(tokenizer)
    assert half.add(tokenizer.encode("€").ids[0]) == "" and half.finish() == "\ufffd"


def test_stop_strings_hold_back_only_what_may_be_one():
    stops = StopStrings(["END", "\n\n"])
    assert [stops.add(part) for part in ("a E", "N", "x\n", "y", "E", "ND more")] == ["a ", "", "ENx", "\ny", "", ""]
    assert stops.is_complete
    open_end = StopStrings(["END"])
    assert open_end.add("to EN") == "to " and open_end.finish() == "EN"


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "ok": {"type": "boolean"}},
    "required": ["name", "ok"],
    "additionalProperties": False,
}


def test_answers_with_a_grammar_always_parse(folder):
    engine = load_engine(folder, EngineOptions(slots=8, cache_tokens=4096))

    def answers(grammar, count=3, max_tokens=50):
        params = [
            SamplingParams(max_tokens=max_tokens, seed=seed, temperature=seed / 2, grammar=grammar)
            for seed in range(count)
        ]
        rows = [GenerationRequest(str(each.seed), [5, 6, 7], each) for each in params]
        return [answer.text for answer in complete_all(engine, rows) if answer.finish_reason == "stop"]

    for text in answers(schema_grammar(SCHEMA)):
        assert set(json.loads(text)) == {"name", "ok"}
    assert all(isinstance(json.loads(text), dict) for text in answers(object_grammar()))
    texts = answers(regex_grammar("(ab|cd)/[0-9]{2}"))
    assert texts and all(text[:3] in ("ab/", "cd/") and text[3:].isdigit() for text in texts)
    assert set(answers(lark_grammar('start: "yes" | "no"'))) <= {"yes", "no"}


@pytest.mark.parametrize("is_fused", [True, False])
def test_adapters_of_one_batch_equal_their_merged_models(folder, tmp_path, is_fused):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from trainer.generation.forward import TransformersForward
    from trainer.generation.torch_engine import TorchEngine

    merged = {None: AutoModelForCausalLM.from_pretrained(folder)}
    for number, targets in enumerate((["q_proj", "v_proj"], "all-linear")):
        torch.manual_seed(number)
        config = LoraConfig(r=4, lora_alpha=6, use_rslora=bool(number), target_modules=targets, init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
        model.save_pretrained(tmp_path / str(number))
        merged[str(number)] = model.merge_and_unload()
    if is_fused:
        engine = load_engine(folder)
    else:
        base = AutoModelForCausalLM.from_pretrained(folder)
        engine = TorchEngine(TransformersForward(base), read_tokenizer(folder), options=EngineOptions(slots=8))
    for name in ("0", "1"):
        engine.add_adapter(name, tmp_path / name)
    prompt = list(range(40, 80))
    params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    names = [None, "1", "0", "1", None]
    rows = [GenerationRequest(str(index), prompt, params, name) for index, name in enumerate(names)]
    for answer, name in zip(complete_all(engine, rows), names, strict=True):
        with torch.inference_mode():
            ids = torch.tensor([[*prompt, *answer.token_ids]])
            logits = merged[name](input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1 : -1]
        assert answer.token_ids == logits.argmax(-1).tolist()
    engine.add(rows[1])
    engine.remove_adapter("1")
    with pytest.raises(ValueError, match="no adapter '1'"):
        engine.add(rows[3])
    events = []
    while engine.has_work:
        events += engine.step()
    assert events[-1].finish_reason == "length"


def test_an_adapter_that_is_more_than_low_ranks_is_refused(folder, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="modules_to_save"):
        load_engine(folder).add_adapter("a", tmp_path)


@pytest.mark.skipif(not has_int8(), reason="this torch has no int8 products")
def test_int8_layers_are_close_and_do_not_depend_on_the_batch():
    # If torch drops fbgemm's operations: take `torch.ops.onednn.qlinear_pointwise`, half as fast for one token.
    torch.manual_seed(0)
    layer = torch.nn.Linear(96, 64)
    values = torch.randn(17, 96) * torch.logspace(-3, 3, 17)[:, None]
    int8 = Int8Linear(layer.weight, layer.bias)
    with torch.inference_mode():
        exact = torch.nn.functional.linear(values, layer.weight)
        output = int8(values)
        assert torch.cosine_similarity(output - layer.bias, exact, dim=-1)[3:].min() > 0.999
        assert torch.equal(torch.cat([int8(value[None]) for value in values]), output)
        extreme = Int8Linear(torch.full((4, 64), 1.0), None)(torch.full((1, 64), 1.0))
    assert torch.allclose(extreme, torch.tensor(64.0), rtol=1e-3)  # no overflow in 16 bits
    table = torch.randn(10, 16)
    assert (Int8Embedding(table)(torch.tensor([3, 1])) - table[[3, 1]]).abs().max() < 0.02


def test_large_and_small_products_are_those_of_linear_layers():
    torch.manual_seed(0)
    for n_outputs, has_bias in ((2048, False), (2100, True), (24, True)):
        layer = torch.nn.Linear(16, n_outputs, bias=has_bias)
        product = Product({"a": layer})
        values, factors = torch.randn(3, 16), torch.tensor([[0.5], [1.0], [2.0]])
        with torch.inference_mode():
            torch.testing.assert_close(product(values, factors), layer(values * factors))
            sums = torch.ones(3, n_outputs)
            product.add(sums, values)
            torch.testing.assert_close(sums, layer(values) + 1)


@pytest.mark.skipif(not has_int8(), reason="this torch has no int8 products")
def test_int8_scores_are_close(folder):
    rows = [list(range(10, 60)), [7, 8, 9]]
    exact, int8 = (load_engine(folder, int8=int8).score(rows) for int8 in (False, True))
    for one, other in zip(exact, int8, strict=True):
        assert np.abs(one - other).mean() < 0.15


def test_prefixes_are_dropped_from_their_ends_and_only_for_others():
    cache = KeyValueCache(CacheShape(1, 1, 4), slots=2, max_length=256, capacity=4 * BLOCK)
    prefixes = PrefixCache(cache)
    cache.tensor.normal_()
    first, second = list(range(3 * BLOCK)), list(range(900, 900 + 2 * BLOCK))
    prefixes.store(first, 0, slot=0)
    assert prefixes.tokens == 3 * BLOCK
    prefixes.store(second, 0, slot=0)
    assert prefixes.load(first, 0, slot=1) == 2 * BLOCK and prefixes.tokens == 4 * BLOCK
    assert torch.equal(cache.tensor[:, :, 1, :, : 2 * BLOCK], cache.tensor[:, :, 0, :, : 2 * BLOCK])
    assert prefixes.load(first, 1, slot=1) == 0  # another adapter
    assert prefixes.load(second, 0, slot=1) == BLOCK  # the last token is left to compute
    assert prefixes.drop(10 * BLOCK) == 0


def test_the_cache_gives_back_the_memory_of_free_slots():
    cache = KeyValueCache(CacheShape(1, 1, 1024), slots=3, max_length=64, capacity=100)
    slots = [cache.reserve(40) for _ in range(2)]
    assert slots == [0, 1] and cache.reserve(40) is None
    for slot in slots:
        cache.tensor[:, :, slot].fill_(1.0)
        cache.touch(slot, 64)
        cache.free(slot)
    assert cache.reserve(90) == 0
    assert not cache.tensor[:, :, 1].any() and cache.tensor[:, :, 0].all()


def test_drafts_are_what_followed_before():
    lookup = PromptLookup()
    assert lookup.draft([1, 2, 3, 4, 1, 2], 3) == [3, 4, 1]
    assert lookup.draft([1, 2, 3, 4, 1, 2, 9], 3) == []
    for _ in range(2):
        lookup.note(3, 0)
    assert lookup.draft([1, 2, 3, 4, 1, 2, 9, 1, 2], 3) == []  # bad drafts: the next steps go without


def test_the_tiny_tokenizer_has_its_special_tokens(tmp_path):
    write_tiny_tokenizer(tmp_path)
    assert read_tokenizer(tmp_path).token_to_id("<|im_end|>") == 2
