"""The model inputs of preference rows: two sequences of tokens, or one with its label, in one int32 array.

A sequence is prompt and answer, as in `trainer.chat.tokens`: the prompt is not learned. Letters in shapes: B rows, T
tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

#: `sequence`: the tokens alone; `pair`: chosen and rejected; `label`: one answer that is desirable or not.
RowKind = Literal["sequence", "pair", "label"]


def row_kind(roles: Collection[str]) -> RowKind:
    """Return the kind of rows whose columns have these roles."""
    return "pair" if "chosen" in roles else "label" if "desirable" in roles else "sequence"


def join_pair(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Return the input of a pair, int32: the length of the chosen sequence, then both sequences."""
    return np.concatenate([np.array([len(chosen)], np.int32), chosen, rejected]).astype(np.int32)


def split_pair(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen and the rejected sequence of a pair."""
    end = 1 + int(row[0])
    return row[1:end], row[end:]


def join_label(sequence: np.ndarray, *, desirable: bool) -> np.ndarray:
    """Return the input of an answer with a label, int32: 1 or 0, then the sequence."""
    return np.concatenate([np.array([int(desirable)], np.int32), sequence]).astype(np.int32)


def split_label(row: np.ndarray) -> tuple[bool, np.ndarray]:
    """Return whether an answer is desirable, and its sequence."""
    return bool(row[0]), row[1:]


def split_row(kind: RowKind, row: np.ndarray) -> list[np.ndarray]:
    """Return the sequences of one row: of a pair two, first the chosen one.

    A row without an answer, such as a request, is one sequence of any kind: it begins with a token that is not learned,
    which is a negative number.
    """
    if kind == "sequence" or row[0] < 0:
        return [row]
    return list(split_pair(row)) if kind == "pair" else [split_label(row)[1]]


def sequences_of(kind: RowKind, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the sequences of all rows, in order."""
    return [sequence for row in rows for sequence in split_row(kind, row)]


def join_statistics(kind: RowKind, rows: Sequence[np.ndarray], statistics: np.ndarray) -> np.ndarray:
    """Return each row's scores as `trainer.targets.generated` has them, float64, shape (B, 5).

    `statistics` has those of `sequences_of`: negative log-likelihood, tokens, and how many were predicted right.
    """
    scores = np.zeros((len(rows), 5))
    n_done = 0
    for score, row in zip(scores, rows, strict=True):
        parts = statistics[n_done : n_done + len(split_row(kind, row))]
        n_done += len(parts)
        if kind == "label" and row[0] == 0:
            score[3:] = parts[0, :2]
            continue
        score[:3] = parts[0]
        score[3:] = parts[1, :2] if len(parts) > 1 else 0.0
    return scores


def answer_start(sequence: np.ndarray) -> int:
    """Return the index of the first token of the last answer: where the last run of learned tokens begins.

    A sequence without learned tokens is all prompt: its answer would begin at its end.
    """
    learned = sequence >= 0
    if not learned.any():
        return len(sequence)
    end = len(sequence) - int(np.argmax(learned[::-1]))  # one past the last learned token
    unlearned = np.flatnonzero(~learned[:end])
    return int(unlearned[-1]) + 1 if len(unlearned) else 0


def with_answer_of(sequence: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the prompt of `sequence` with the answer of `other`."""
    return np.concatenate([sequence[: answer_start(sequence)], other[answer_start(other) :]])
