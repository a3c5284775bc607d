"""Token ids of many texts by tokenizing each different word once; equal to the library's, id by id.

For tokenizers of the BERT family a space always ends a token, so the ids of a text are those of its space-separated
pieces, one after the other. Texts repeat their words: of the 200,000 words in a block of messages some 5,000 differ. Splitting,
finding the different ones and gathering ids run in Arrow and numpy; the library sees only pieces it has not seen before.
Other tokenizers (byte-level BPE, SentencePiece), where a space belongs to the next token, are left to the library.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PRE_TOKENIZERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_NORMALIZERS = {"BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"}
_MODELS = {"WordPiece", "WordLevel"}
# Longer pieces are rare and differ (links, texts without spaces): they are tokenized, but not kept.
_LONGEST_KEPT = 64
_MOST_KEPT = 100_000
# Where more of the pieces are different ones, the library alone is faster.
_MOST_DIFFERENT = 0.5
_PROVED_ROWS = 16


class WordIds:
    """Token ids by word, for one tokenizer. `suits` says whether that is exact for it."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, Sequence[int]] = {}
        self.suits = _space_ends_every_token(json.loads(tokenizer.to_str()))
        prefix, suffix = self._frame() if self.suits else (None, None)
        self.suits = self.suits and prefix is not None
        self._prefix, self._suffix = np.asarray(prefix or [], np.int32), np.asarray(suffix or [], np.int32)
        self._room = max_length - len(self._prefix) - len(self._suffix)
        self.suits = self.suits and self._room > 0

    def column(self, texts: pa.Array) -> pa.ListArray | None:
        """Return int32 ids of each text, or None where the library should do it: it would be faster, or it differs."""
        if not self.suits or len(texts) == 0:
            return None
        pieces = pc.split_pattern(texts, " ")
        words = pieces.flatten().dictionary_encode()
        if len(words.dictionary) > _MOST_DIFFERENT * len(words) + 1000:
            return None
        lists = self._ids_of(words.dictionary.to_pylist())
        offsets, values = self._joined(lists, words.indices.to_numpy(), pieces.offsets.to_numpy())
        found = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
        if not self._equals_the_library(texts, found):
            self.suits = False
            return None
        return found

    def _ids_of(self, words: list[str]) -> list[Sequence[int]]:
        known = self._known
        new = [word for word in words if word not in known]
        found = self._tokenizer.encode_batch_fast(new, add_special_tokens=False) if new else []
        ids: dict[str, Sequence[int]] = {word: tuple(each.ids) for word, each in zip(new, found, strict=True)}
        lists = [ids[word] if word in ids else known[word] for word in words]
        kept = ids.items()
        if len(known) + len(ids) > _MOST_KEPT:
            # The words of this block stay: those of every day are among them, and numbers seen once go.
            kept = dict(zip(words, lists, strict=True)).items()
            known.clear()
        known.update((word, each) for word, each in kept if len(word) <= _LONGEST_KEPT)
        return lists

    def _joined(
        self, lists: list[Sequence[int]], word_W: np.ndarray, first_word_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (offsets, values) of all texts: prefix, the words' ids cut to the room there is, suffix."""
        size_D = np.fromiter(map(len, lists), np.int64, len(lists))
        flat = np.fromiter((each for ids in lists for each in ids), np.int32, int(size_D.sum()))
        start_D = np.cumsum(size_D) - size_D
        size_W = size_D[word_W]
        end_W = np.concatenate([[0], np.cumsum(size_W)])
        first_B = first_word_B - first_word_B[0]
        body_B = np.minimum(np.diff(end_W[first_B]), self._room)
        # Every token of every text, then only the first `room` of each.
        place = np.arange(end_W[-1]) - np.repeat(end_W[:-1] - start_D[word_W], size_W)
        ids = flat[place]
        n_before, n_after = len(self._prefix), len(self._suffix)
        offsets = np.concatenate([[0], np.cumsum(body_B + n_before + n_after)])
        values = np.empty(offsets[-1], np.int32)
        for at in range(n_before):
            values[offsets[:-1] + at] = self._prefix[at]
        for at in range(n_after):
            values[offsets[1:] - n_after + at] = self._suffix[at]
        inside = _ranges(body_B)
        values[np.repeat(offsets[:-1] + n_before, body_B) + inside] = ids[
            np.repeat(end_W[first_B[:-1]], body_B) + inside
        ]
        return offsets.astype(np.int32), values

    def _equals_the_library(self, texts: pa.Array, found: pa.ListArray) -> bool:
        sample = np.unique(np.linspace(0, len(texts) - 1, _PROVED_ROWS).astype(np.int64))
        expected = self._tokenizer.encode_batch_fast(texts.take(pa.array(sample)).to_pylist())
        return all(found[int(at)].as_py() == each.ids for at, each in zip(sample, expected, strict=True))

    def _frame(self) -> tuple[list[int] | None, list[int] | None]:
        """Return the ids that the tokenizer puts before and after every text, as [CLS] and [SEP]."""
        frames = []
        for probe in ("a", "1"):
            bare = self._tokenizer.encode(probe, add_special_tokens=False).ids
            whole = self._tokenizer.encode(probe).ids
            places = [at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare]
            if not bare or not places:
                return None, None
            frames.append((whole[: places[0]], whole[places[0] + len(bare) :]))
        return frames[0] if frames[0] == frames[1] else (None, None)


def _ranges(sizes: np.ndarray) -> np.ndarray:
    """Return 0..n-1 for each n in `sizes`, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def _space_ends_every_token(description: dict[str, Any]) -> bool:
    """Whether the tokenizer, by its tokenizer.json, treats a text as its space-separated pieces one after the other."""
    truncation = description.get("truncation") or {}
    return (
        description["model"]["type"] in _MODELS
        and _all_of(description.get("pre_tokenizer"), "pretokenizers", _PRE_TOKENIZERS)
        and (description.get("normalizer") is None or _all_of(description["normalizer"], "normalizers", _NORMALIZERS))
        and truncation.get("direction", "Right") == "Right"
        and not any(" " in token["content"] for token in description.get("added_tokens", []))
    )


def _all_of(part: dict[str, Any] | None, inner: str, kinds: set[str]) -> bool:
    if part is None:
        return False
    if part["type"] == "Sequence":
        return all(_all_of(each, inner, kinds) for each in part[inner])
    return part["type"] in kinds
