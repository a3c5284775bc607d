"""Row dropout: the right share of units, and the same units for a row in any batch."""

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from trainer.optim.bert.dropout import RowDropout, RowMasks, install_row_dropout, make_row_keys

KEYS = make_row_keys(seed=1, epoch=2, step=3, positions=np.arange(64))


def make_mask(keys, shape, rate=0.1, site=5, dtype=torch.float32):
    masks = RowMasks()
    masks.set_rows(keys)
    return masks.mask(site, torch.Size(shape), rate, dtype)


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_dropped_share_and_the_mean(rate):
    mask = make_mask(KEYS, (64, 50, 384), rate)
    dropped = float((mask == 0).float().mean())
    assert dropped == pytest.approx(rate, rel=0.06, abs=2e-4)
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.01)
    assert len(mask.unique()) == 2


def test_neighboring_units_rows_and_sites_are_independent():
    dropped = (make_mask(KEYS, (64, 40, 96), 0.5) == 0).double() - 0.5
    other = (make_mask(KEYS, (64, 40, 96), 0.5, site=6) == 0).double() - 0.5
    pairs = [
        (dropped[1:], dropped[:-1]),
        (dropped[:, 1:], dropped[:, :-1]),
        (dropped[..., 1:], dropped[..., :-1]),
        (dropped[..., 8:], dropped[..., :-8]),
        (dropped, other),
    ]
    for left, right in pairs:
        assert abs(float((left * right).mean() * 4)) < 0.01
    next_step = make_row_keys(1, 2, 4, np.arange(64))
    assert not set(KEYS.tolist()) & set(next_step.tolist())


def test_a_row_drops_the_same_units_in_any_batch_and_at_any_padding():
    whole = make_mask(KEYS[:8], (8, 20, 30))
    some = make_mask(KEYS[[5, 2]], (2, 13, 30))
    assert torch.equal(some, whole[[5, 2], :13])
    attention = make_mask(KEYS[:8], (8, 4, 20, 20))
    assert torch.equal(make_mask(KEYS[[3]], (1, 4, 7, 7)), attention[[3], :, :7, :7])


def test_all_precisions_drop_the_same_units():
    as_float = make_mask(KEYS[:4], (4, 9, 24))
    for dtype in (torch.bfloat16, torch.float16):
        found = make_mask(KEYS[:4], (4, 9, 24), dtype=dtype)
        assert found.dtype is dtype and torch.equal(found == 0, as_float == 0)


def test_tensors_whose_first_axis_is_not_the_rows_use_the_dropout_of_torch():
    masks = RowMasks()
    dropout = RowDropout(masks, 1, 0.5)
    values = torch.ones(10, 10)
    masks.set_rows(KEYS[:4])
    torch.manual_seed(0)
    first = dropout(values)
    torch.manual_seed(0)
    assert torch.equal(first, dropout(values)) and 0 < int((first == 0).sum()) < 100
    assert torch.equal(dropout.eval()(values), values)


CONFIGS = {
    "bert": lambda: BertForSequenceClassification(
        BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    ),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
    ),
}


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_model_of_transformers_in_training_gives_a_row_the_same_logits_in_any_batch(kind):
    torch.manual_seed(0)
    model = CONFIGS[kind]().train()
    masks = install_row_dropout(model)
    assert model.config._attn_implementation == "raymill"
    assert not [m for m in model.modules() if type(m) is torch.nn.Dropout and m.p]
    ids = torch.randint(5, 99, (6, 9))
    mask = torch.ones_like(ids)
    mask[:, 7:] = 0

    def logits(rows):
        masks.set_rows(KEYS[rows])
        return model(input_ids=ids[rows], attention_mask=mask[rows]).logits

    whole = logits(np.arange(6))
    assert torch.allclose(logits(np.array([4, 1])), whole[[4, 1]], atol=1e-6)
    model.eval()
    assert not torch.allclose(logits(np.arange(6)), whole, atol=1e-3)


def test_all_parameters_get_gradients():
    torch.manual_seed(0)
    model = CONFIGS["bert"]().train()
    masks = install_row_dropout(model)
    masks.set_rows(KEYS[:3])
    model(input_ids=torch.randint(5, 99, (3, 9))).logits.sum().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


def test_saving_a_model_does_not_name_the_attention(tmp_path):
    model = CONFIGS["bert"]()
    install_row_dropout(model)
    model.save_pretrained(tmp_path)
    assert "raymill" not in (tmp_path / "config.json").read_text()
