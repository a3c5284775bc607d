"""Packed sequences and chunked losses, held to transformers' own losses and gradients."""

import copy

import numpy as np
import pytest
import torch

from cluster.errors import ModelError
from support.tiny_causal import write_tiny_causal
from trainer.chat.tokens import join_mask, token_ids
from trainer.models.causal import token_loss
from trainer.models.causal.batch import count_learned, pack_rows, row_statistics
from trainer.models.causal.judge import judge_rows
from trainer.models.causal.packed_forward import use_packed_forward


def make_rows(count=7, seed=0, longest=60, n_ids=400):
    """Return rows of tokens of which about half are learned."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, longest, count)
    return [join_mask(rng.integers(3, n_ids, length), rng.random(length) < 0.5) for length in lengths]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_causal(tmp_path_factory.mktemp("tiny") / "model")


def load(folder):
    """Return transformers' model and ours, with the same weights."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder)
    return theirs, use_packed_forward(copy.deepcopy(theirs))


def their_sum(model, rows):
    """Return transformers' loss summed over the learned tokens, row by row: nothing is packed or padded."""
    total = torch.zeros(())
    for row in rows:
        ids = torch.from_numpy(token_ids(row)).long()[None]
        labels = torch.from_numpy(np.where(row >= 0, row, -100)).long()[None]
        if count_learned(row):
            total = total + model(input_ids=ids, labels=labels).loss * count_learned(row)
    return total


@pytest.mark.parametrize("chunk", [None, 400 * 64])
def test_losses_and_gradients_are_those_of_transformers(folder, chunk, monkeypatch):
    if chunk:  # several chunks
        monkeypatch.setitem(token_loss._CHUNK_NUMBERS, "cpu", chunk)
    theirs, ours = load(folder)
    rows = make_rows(count=12)
    expected, found = their_sum(theirs, rows), ours(**pack_rows(rows)).nll.sum()
    expected.backward()
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    mine = dict(ours.named_parameters())
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(mine[name].grad, value.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [{"tie_word_embeddings": False}, {"sliding_window": 8, "model": "mistral"}, {"model": "qwen2"}, {"model": "gemma2"}, {"model": "granite"}])  # fmt: skip
def test_other_architectures(folder, change):
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {**change}
    name = values.pop("model", "llama")
    extra = {"gemma2": {"head_dim": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": None}, "granite": {"logits_scaling": 4.0}}.get(name, {})  # fmt: skip
    config = AutoConfig.for_model(name, vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2, **values, **extra)  # fmt: skip
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ours = use_packed_forward(copy.deepcopy(theirs))
    rows = make_rows()
    expected, found = their_sum(theirs, rows), ours(**pack_rows(rows)).nll.sum()
    expected.backward()
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    mine = dict(ours.named_parameters())
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(mine[name].grad, value.grad, rtol=1e-3, atol=2e-4)


def test_packed_rows_do_not_see_each_other(folder):
    _, ours = load(folder)
    rows = make_rows()
    together, alone = ours(**pack_rows(rows)).nll, [ours(**pack_rows([row])).nll for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_statistics_of_rows(folder):
    theirs, ours = load(folder)
    rows = [*make_rows(), join_mask(np.arange(5, 12), np.zeros(7, bool))]
    statistics = judge_rows(ours, rows, max_rows=3, max_tokens=80, device="cpu")
    assert statistics.shape == (8, 3) and statistics.dtype == np.float64
    for row, (nll, n_tokens, right) in zip(rows[:-1], statistics, strict=False):
        assert n_tokens == count_learned(row) and 0 <= right <= n_tokens
        assert nll == pytest.approx(float(their_sum(theirs, [row])), rel=1e-5)
    assert statistics[-1, 1] == 6  # a row without learned tokens is judged on all of them
    batch = pack_rows(rows[:-1])
    np.testing.assert_allclose(row_statistics(batch, ours(**batch)), statistics[:-1], rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", [token_loss.LogitForm(), token_loss.LogitForm(0.5, 2.0)])
def test_every_token_may_have_a_factor_of_its_own(bias, form):
    torch.manual_seed(0)
    leaves = [torch.randn(130, 16), torch.randn(50, 16), torch.randn(50)]
    ids, factors = torch.randint(0, 50, (130,)), torch.rand(130)
    results = []
    for compute in (token_loss.token_losses, _plain_losses):
        states, weight, bias_V = (leaf.clone().requires_grad_() for leaf in leaves)
        losses = compute(states, weight, bias_V if bias else None, ids, form)
        (losses.nll * factors).sum().backward()
        results.append((losses.nll.detach(), losses.is_right, states.grad, weight.grad, *([bias_V.grad] if bias else [])))  # fmt: skip
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def _plain_losses(states, weight, bias, ids, form):
    logits = torch.nn.functional.linear(states, weight, bias) * form.factor
    if form.cap:
        logits = form.cap * torch.tanh(logits / form.cap)
    nll = torch.nn.functional.cross_entropy(logits, ids, reduction="none")
    return token_loss.TokenLosses(nll, logits.argmax(1) == ids)


def test_rows_without_learned_tokens_have_no_loss(folder):
    _, ours = load(folder)
    loss = ours(**pack_rows([join_mask(np.arange(5, 9), np.zeros(4, bool))])).nll.sum()
    loss.backward()
    assert float(loss) == 0 and all(value.grad is None or not value.grad.any() for value in ours.parameters())


def test_a_model_that_changes_its_logits_is_refused(folder):
    theirs, _ = load(folder)

    class Odd(type(theirs)):
        def forward(self, *arguments, **options):
            output = super().forward(*arguments, **options)
            output.logits = output.logits * 2
            return output

    theirs.__class__ = Odd
    with pytest.raises(ModelError, match="the losses of Odd are not those of its own logits"):
        use_packed_forward(theirs)


def test_layers_with_lora_are_those_of_peft(folder):
    import peft

    from trainer.models.lora_linear import install_lora_products

    results = []
    for install in (False, True):
        _, model = load(folder)
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        adapted = peft.get_peft_model(model, config)
        if install:
            assert install_lora_products(model) == 14
        loss = model(**pack_rows(make_rows())).nll.sum()
        loss.backward()
        results.append((loss.detach(), {name: value.grad for name, value in adapted.named_parameters()}))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
    for name, gradient in results[0][1].items():
        if gradient is None:
            assert results[1][1][name] is None
        else:
            torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-3, atol=1e-3)
