"""Training with only the used rows of the word embedding: the same numbers, and the full embedding when it is saved."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from trainer.training.compact_vocabulary import CompactVocabulary


class FakeRows:
    """Prepared rows with only the method that is used here."""

    def __init__(self, used):
        self._used = np.asarray(used, np.int32)

    def tokens(self):
        return self._used


def model_of(vocab=2000, pad=0, seed=0):
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocab, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            pad_token_id=pad, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


USED = [1, 101, 102, 700, 1500, 1999]


def train(model, vocabulary, steps=5):
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = rate = 1e-2 / (step + 1)
        tokens = torch.tensor([[101, 700, 1500, 102], [101, 1999, 102, 0]])
        ids = vocabulary.remap({"input_ids": tokens}, "input_ids")["input_ids"]
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=torch.tensor([0, 1])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        vocabulary.on_step(rate)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_same_losses_same_weights_and_fewer_parameters():
    plain, compact = model_of(), model_of()
    off = CompactVocabulary(plain, [FakeRows(range(2000))], 0, 0.1)  # all rows are used: nothing is swapped
    on = CompactVocabulary(compact, [FakeRows(USED)], 0, 0.1)
    assert compact.get_input_embeddings().num_embeddings == 256 + 3
    assert plain.get_input_embeddings().num_embeddings == 2000
    assert train(plain, off) == train(compact, on)
    with on.full_embedding():
        assert compact.get_input_embeddings().num_embeddings == 2000
        for (name, a), b in zip(plain.state_dict().items(), compact.state_dict().values(), strict=True):
            assert torch.allclose(a, b, atol=1e-7), name
    assert compact.get_input_embeddings().num_embeddings == 259


def test_saving_in_between_changes_nothing():
    once, twice = model_of(), model_of()
    a, b = CompactVocabulary(once, [FakeRows(USED)], 0, 0.1), CompactVocabulary(twice, [FakeRows(USED)], 0, 0.1)
    train(once, a, 3)
    train(twice, b, 3)
    with b.full_embedding():
        pass
    with a.full_embedding(), b.full_embedding():
        assert torch.equal(once.get_input_embeddings().weight, twice.get_input_embeddings().weight)


@pytest.mark.parametrize("pad", [300, 1999])
def test_a_model_that_pads_with_a_high_id_is_not_changed(pad):
    model = model_of(pad=pad)
    CompactVocabulary(model, [FakeRows(USED)], pad, 0.1)
    assert model.get_input_embeddings().num_embeddings == 2000


def test_the_full_embedding_follows_the_model_to_another_device():
    """As on a GPU: the full embedding is not in the model when the model is moved."""
    model = model_of()
    compact = CompactVocabulary(model, [FakeRows(USED)], 0, 0.1)
    model.to("meta")
    with compact.full_embedding():
        assert model.get_input_embeddings().num_embeddings == 2000
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_a_model_without_an_output_embedding_is_not_changed():
    class Own(torch.nn.Module):
        def get_input_embeddings(self):
            raise AssertionError

    CompactVocabulary(Own(), [FakeRows(USED)], 0, 0.1)
