"""Long rows as short sequences: every token is predicted once."""

from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from trainer.spec.train import TrainSpec
from trainer.training.cut_rows import CutRows

ROWS = [np.arange(10, 21), np.arange(30, 31), np.arange(50, 55), np.arange(70, 79)]


def cut(n_tokens):
    rows = SimpleNamespace(lengths=np.array([len(row) for row in ROWS], np.int32), inputs=lambda row: ROWS[row])
    rows.targets = np.array([1, 2, 3, 4])
    return CutRows(
        type("Rows", (), {"__len__": lambda self: len(ROWS), **vars(rows), "inputs": staticmethod(rows.inputs)})(),
        n_tokens,
    )


@pytest.mark.parametrize("n_tokens", [2, 3, 4, 100])
def test_every_token_is_predicted_once(n_tokens):
    sequences = cut(n_tokens)
    own = [sequences.inputs(number) for number in range(len(sequences))]
    assert [len(tokens) for tokens in own] == sequences.lengths.tolist() and max(map(len, own)) <= n_tokens + 1
    predicted = np.concatenate([tokens[1:] for tokens in own])
    assert predicted.tolist() == np.concatenate([row[1:] for row in ROWS]).tolist()
    assert all((np.diff(tokens) == 1).all() for tokens in own)


def test_sequences_know_their_rows():
    sequences = cut(4)
    assert sequences.row_numbers.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert sequences.targets.tolist() == [1, 1, 1, 2, 3, 4, 4]


def test_pairs_are_not_cut():
    with pytest.raises(ValidationError, match="cuts texts"):
        TrainSpec.model_validate({"sequence_tokens": 64, "method": "dpo"})
