"""Token ids and masks of many sequences at once, from their pieces of text.

Letters in shapes: T tokens of all sequences side by side, P pieces, S sequences.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trainer.chat.control_tokens import split_marked
from trainer.chat.tokenizer import SegmentTokenizer

NO_STOP = "the chat template writes no end-of-turn token after the answer, so a model would never stop"
NOTHING_LEARNED = "nothing to learn in it"


class TextPiece(NamedTuple):
    """A piece of a sequence: a text that is tokenized by itself, or ids."""

    text: str
    ids: tuple[int, ...] = ()
    learned: bool = False
    is_answer: bool = False
    """Whether it must hold an end-of-turn token. If it is learned, then up to this token; the model stops there."""


class EncodedSequences(NamedTuple):
    """The tokens of sequences side by side, and why some cannot be used."""

    tokens: np.ndarray
    """int32, shape (T,), in the form of `trainer.chat.tokens`."""
    ends: np.ndarray
    """int64, shape (S + 1,): where each sequence begins and ends."""
    reasons: list[str | None]

    def sequence(self, number: int) -> np.ndarray:
        """Return the tokens of one sequence."""
        return self.tokens[self.ends[number] : self.ends[number + 1]]


def encode_sequences(
    tokenizer: SegmentTokenizer,
    sequences: Sequence[Sequence[TextPiece]],
    stop_ids: Sequence[int],
    learns_all: Sequence[bool],
) -> EncodedSequences:
    """Tokenize all pieces in one call, and put the sequences together.

    Where `learns_all` holds, every token of a sequence is learned. A sequence in which an answer has no end-of-turn token, or
    nothing is learned, gets a reason.
    """
    pieces = [piece for sequence in sequences for piece in sequence]
    ids_by_piece = _encode_pieces(tokenizer, sequences)
    size_P = np.fromiter(map(len, ids_by_piece), np.int64, len(pieces))
    ids_T = np.fromiter(itertools.chain.from_iterable(ids_by_piece), np.int32, int(size_P.sum()))
    end_P = np.cumsum(size_P)
    last_stop_P = _last_stops(ids_T, size_P, stop_ids)
    is_answer_P = np.array([piece.is_answer for piece in pieces], bool)
    n_pieces = np.fromiter(map(len, sequences), np.int64, len(sequences))
    all_P = np.repeat(np.asarray(learns_all, bool), n_pieces)
    learned_P = np.array([piece.learned for piece in pieces], bool) | all_P
    # A learned answer ends with its end of turn; what the template writes after it is never generated.
    learned_end_P = np.where(is_answer_P & ~all_P, last_stop_P + 1, end_P)
    piece_T = np.repeat(np.arange(len(pieces)), size_P)
    learned_T = learned_P[piece_T] & (np.arange(len(ids_T)) < learned_end_P[piece_T])
    ends = np.concatenate([[0], end_P])[np.concatenate([[0], np.cumsum(n_pieces)])]
    reasons = _find_reasons(sequences, last_stop_P, learned_T, ends)
    return EncodedSequences(np.where(learned_T, ids_T, ~ids_T), ends, reasons)


def _encode_pieces(tokenizer: SegmentTokenizer, sequences: Sequence[Sequence[TextPiece]]) -> list[Sequence[int]]:
    """Return the ids of each piece."""
    firsts: list[tuple[int, str]] = []
    others: list[tuple[int, str]] = []
    ids_by_piece: list[Sequence[int]] = []
    for sequence in sequences:
        has_text = False
        for piece in sequence:
            number = len(ids_by_piece)
            ids_by_piece.append(piece.ids)
            parts = split_marked(piece.text) if piece.text else []
            if len(parts) == 1 and not parts[0][1]:
                (others if has_text else firsts).append((number, piece.text))
            elif parts:
                ids_by_piece[number] = _encode_parts(tokenizer, parts, follow=has_text)
            has_text |= bool(parts)
    for group, follow in ((firsts, False), (others, True)):
        encoded = tokenizer.encode([text for _, text in group], follow=follow)
        for (number, _), ids in zip(group, encoded, strict=True):
            ids_by_piece[number] = ids
    return ids_by_piece


def _encode_parts(tokenizer: SegmentTokenizer, parts: list[tuple[str, bool]], *, follow: bool) -> list[int]:
    """Return the ids of a text in which some parts stay text though they look like special tokens."""
    ids: list[int] = []
    for number, (text, is_users) in enumerate(parts):
        after = follow or number > 0
        ids += tokenizer.encode_plain(text, follow=after) if is_users else tokenizer.encode([text], follow=after)[0]
    return ids


def _last_stops(ids_T: np.ndarray, size_P: np.ndarray, stop_ids: Sequence[int]) -> np.ndarray:
    """Return the position of the last end-of-turn token in each piece, int64, shape (P,); -1 if there is none."""
    last_P = np.full(len(size_P), -1, np.int64)
    stops = np.flatnonzero(np.isin(ids_T, np.asarray(stop_ids, np.int32)))
    piece_of_stop = np.searchsorted(np.cumsum(size_P), stops, side="right")
    last_P[piece_of_stop] = stops  # of several in a piece, the last one is assigned last
    return last_P


def _find_reasons(
    sequences: Sequence[Sequence[TextPiece]], last_stop_P: np.ndarray, learned_T: np.ndarray, ends: np.ndarray
) -> list[str | None]:
    n_learned = np.diff(np.concatenate([[0], np.cumsum(learned_T)])[ends])
    reasons: list[str | None] = []
    first = 0
    for number, sequence in enumerate(sequences):
        answers = [first + index for index, piece in enumerate(sequence) if piece.is_answer and piece.learned]
        first += len(sequence)
        if any(last_stop_P[piece] < 0 for piece in answers):
            reasons.append(NO_STOP)
        else:
            reasons.append(None if n_learned[number] else NOTHING_LEARNED)
    return reasons
