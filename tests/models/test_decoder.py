"""raymill's own decoder: saved, loaded, packed, windowed, and continued from the tokens before a chunk."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainer.generation.engine import GenerationRequest, SamplingParams, complete_all
from trainer.generation.load import make_engine
from trainer.generation.torch_engine import EngineOptions
from trainer.models.causal.packed import PackedSegments, position_ids
from trainer.models.causal.packed_forward import use_packed_forward
from trainer.models.decoder.ngrams import history_of, ngram_rows, packed_history
from trainer.models.decoder.register import register_decoder

LENGTH, OTHER = 20, 12


def make_decoder(**changes):
    register_decoder()
    values = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "ngram_sizes": [2, 3, 5],
        "ngram_rows": [50, 100, 200],
        "sliding_window": 8,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("raymill_decoder", **{**values, **changes})).eval()
    with torch.no_grad():
        for value in model.parameters():  # new models predict all tokens alike
            value.add_(torch.randn_like(value) * 0.2)
    return model


@pytest.fixture(scope="module")
def decoder():
    return make_decoder()


@pytest.fixture(scope="module")
def ids():
    return torch.randint(50, (1, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def logits(decoder, ids):
    with torch.no_grad():
        return decoder(ids).logits[0]


def test_saved_and_loaded_it_is_the_same(decoder, ids, logits, tmp_path):
    decoder.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert again.config.history_tokens == 4
    with torch.no_grad():
        assert torch.equal(again(ids).logits[0], logits)


def test_packed_sequences_do_not_see_each_other(ids, logits):
    model = use_packed_forward(make_decoder())
    lengths = [OTHER, LENGTH]
    with torch.no_grad():
        packed = model(
            input_ids=torch.cat([ids[:, :OTHER], ids], 1),
            position_ids=position_ids(lengths),
            segments=PackedSegments(lengths),
        ).logits[0]
    torch.testing.assert_close(packed[:OTHER], logits[:OTHER], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed[OTHER:], logits, rtol=1e-4, atol=1e-4)


def test_a_token_does_not_see_later_ones_nor_those_before_its_windows(decoder, ids, logits):
    changed = ids.clone()
    changed[0, 15] = (changed[0, 15] + 1) % 50
    with torch.no_grad():
        later = decoder(changed).logits[0]
    assert torch.equal(later[:15], logits[:15]) and not torch.allclose(later[15:], logits[15:])
    changed = ids.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 50
    with torch.no_grad():
        earlier = decoder(changed).logits[0]
    # Position 0 reaches 4 tokens on by the n-grams, and 7 in each of the two layers.
    torch.testing.assert_close(earlier[4 + 2 * 7 + 1 :], logits[4 + 2 * 7 + 1 :])
    assert not torch.allclose(earlier[:8], logits[:8])


def test_history_ids_take_the_place_of_positions(decoder, ids, logits):
    rows = history_of(ids[0].tolist(), 0, LENGTH, 4)
    assert torch.equal(torch.tensor(rows), packed_history(ids, torch.arange(LENGTH)[None], 4)[0])
    with torch.no_grad():
        assert torch.equal(decoder(ids, history_ids=torch.tensor([rows])).logits[0], logits)
        last = decoder.model.ngrams(ids[:, -1:], torch.tensor([history_of(ids[0].tolist(), LENGTH - 1, LENGTH, 4)]))
        for part, whole in zip(last, decoder.model.ngrams(ids, torch.tensor([rows])), strict=True):
            assert torch.equal(part[0, 0], whole[0, -1])


def test_rows_of_ngrams_never_change():
    # Trained tables depend on the hash: another one would read other rows of models that are saved.
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    rows = ngram_rows(ids, packed_history(ids, torch.arange(5)[None], 2), [2, 3], [1000, 1 << 20])
    assert [row.tolist() for row in rows] == HASHED


HASHED = [[[746, 305, 738, 432, 356]], [[29648, 12608, 613316, 381093, 434612]]]


def test_rows_of_ngrams_are_spread_evenly():
    ids = torch.arange(64).repeat_interleave(64)[None], torch.arange(64).repeat(64)[None]
    (rows,) = ngram_rows(ids[0], ids[1][..., None], [2], [4096])
    assert len(rows.unique()) > 0.6 * 4096  # 63 % of random numbers


def test_logits_of_some_tokens(decoder, ids, logits):
    with torch.no_grad():
        last = decoder(ids, logits_to_keep=2).logits[0]
        some = decoder(ids, logits_to_keep=torch.tensor([3, 7])).logits[0]
    torch.testing.assert_close(last, logits[-2:])
    torch.testing.assert_close(some, logits[[3, 7]])


def test_left_out_ngrams_only_while_it_trains(ids):
    model = make_decoder(ngram_dropout=0.5)
    states = model.model.ngrams(ids, packed_history(ids, torch.arange(LENGTH)[None], 4))
    assert all((rows != 0).all() for rows in states)
    model.train()
    states = model.model.ngrams(ids, packed_history(ids, torch.arange(LENGTH)[None], 4))
    assert all(0 < int((rows == 0).all(-1).sum()) < LENGTH for rows in states)


def test_new_models_predict_all_tokens_alike(ids):
    register_decoder()
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("raymill_decoder", vocab_size=50))
    assert torch.equal(model(ids).logits, torch.zeros(1, LENGTH, 50))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size"),
        ({"ngram_sizes": [2, 3], "ngram_rows": [10]}, "ngram_rows"),
        ({"ngram_sizes": [1]}, "ngram_sizes"),
    ],
)
def test_configs_that_do_not_fit_are_refused(values, message):
    register_decoder()
    with pytest.raises(ValueError, match=message):
        AutoConfig.for_model("raymill_decoder", **values)


@pytest.mark.parametrize("prompt_tokens", [3, 64])
def test_the_engine_continues_as_the_model_would(ids, prompt_tokens):
    options = EngineOptions(slots=2, cache_tokens=256, prompt_tokens=prompt_tokens, idle_prompt_tokens=prompt_tokens)
    engine = make_engine(make_decoder(), eos_ids=(), options=options)
    params = SamplingParams(max_tokens=6, temperature=0.0)
    prompts = [ids[0].tolist(), ids[0, 4:9].tolist()]
    answers = complete_all(engine, [GenerationRequest(str(n), prompt, params) for n, prompt in enumerate(prompts)])
    plain = make_decoder()
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                expected.append(int(plain(torch.tensor([expected])).logits[0, -1].argmax()))
        assert answer.token_ids == expected[len(prompt) :]
