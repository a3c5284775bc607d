"""Token ids of many texts, tokenizing each distinct word once. The ids equal those of the `tokenizers` library.

With tokenizers of the BERT family, a space always ends a token, so the ids of a text are those of its space-separated
words, one after the other. Texts repeat their words: of the 200,000 words in a block of messages, some 5,000 are
distinct. Arrow and numpy split texts, find the distinct words and gather ids; the library sees only words it has not
seen before.
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
# Longer words are rare and seldom repeat (links, texts without spaces): they are tokenized but not cached.
_MAX_CACHED_LENGTH = 64
_MAX_CACHED_WORDS = 100_000
# With a larger share of distinct words, the library alone is faster.
_MAX_DISTINCT_SHARE = 0.5
_COMPARED_ROWS = 16


class WordTokenizer:
    """Token ids by word, for one tokenizer. `is_exact` says whether the ids equal those of the library."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, Sequence[int]] = {}
        self.is_exact = _space_ends_every_token(json.loads(tokenizer.to_str()))
        prefix, suffix = self._find_special_tokens() if self.is_exact else (None, None)
        self.is_exact = self.is_exact and prefix is not None
        self._prefix, self._suffix = np.asarray(prefix or [], np.int32), np.asarray(suffix or [], np.int32)
        self._max_word_ids = max_length - len(self._prefix) - len(self._suffix)
        self.is_exact = self.is_exact and self._max_word_ids > 0

    def encode_column(self, texts: pa.Array) -> pa.ListArray | None:
        """Return int32 ids of each text, or None if the library should encode them: it is faster, or the ids differ."""
        if not self.is_exact or len(texts) == 0:
            return None
        words = pc.split_pattern(texts, " ")
        distinct = words.flatten().dictionary_encode()
        if len(distinct.dictionary) > _MAX_DISTINCT_SHARE * len(distinct) + 1000:
            return None
        ids_by_word = self._tokenize_words(distinct.dictionary.to_pylist())
        offsets, values = self._join_words(ids_by_word, distinct.indices.to_numpy(), words.offsets.to_numpy())
        ids = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
        if not self._equals_library(texts, ids):
            self.is_exact = False
            return None
        return ids

    def _tokenize_words(self, words: list[str]) -> list[Sequence[int]]:
        cache = self._cache
        new_words = [word for word in words if word not in cache]
        encodings = self._tokenizer.encode_batch_fast(new_words, add_special_tokens=False) if new_words else []
        new: dict[str, Sequence[int]] = {
            word: tuple(encoding.ids) for word, encoding in zip(new_words, encodings, strict=True)
        }
        ids_by_word = [new[word] if word in new else cache[word] for word in words]
        added = new.items()
        if len(cache) + len(new) > _MAX_CACHED_WORDS:
            # Keep only the words of this block. They include the common words; words that occurred once are dropped.
            added = dict(zip(words, ids_by_word, strict=True)).items()
            cache.clear()
        cache.update((word, ids) for word, ids in added if len(word) <= _MAX_CACHED_LENGTH)
        return ids_by_word

    def _join_words(
        self, ids_by_word: list[Sequence[int]], word_W: np.ndarray, first_word_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (offsets, values) of all texts: the prefix, the words' ids truncated to the maximum, the suffix.

        `word_W` has the index of every word among the distinct words, `first_word_B` the index of each text's first
        word among all words. Letters in shapes: B texts, W words, D distinct words.
        """
        size_D = np.fromiter(map(len, ids_by_word), np.int64, len(ids_by_word))
        flat = np.fromiter((token for ids in ids_by_word for token in ids), np.int32, int(size_D.sum()))
        start_D = np.cumsum(size_D) - size_D
        size_W = size_D[word_W]
        end_W = np.concatenate([[0], np.cumsum(size_W)])
        first_B = first_word_B - first_word_B[0]
        length_B = np.minimum(np.diff(end_W[first_B]), self._max_word_ids)
        # All tokens of all texts, then only the first ones of each text.
        ids = flat[np.arange(end_W[-1]) - np.repeat(end_W[:-1] - start_D[word_W], size_W)]
        n_before, n_after = len(self._prefix), len(self._suffix)
        offsets = np.concatenate([[0], np.cumsum(length_B + n_before + n_after)])
        values = np.empty(offsets[-1], np.int32)
        for position in range(n_before):
            values[offsets[:-1] + position] = self._prefix[position]
        for position in range(n_after):
            values[offsets[1:] - n_after + position] = self._suffix[position]
        within = _ranges(length_B)
        values[np.repeat(offsets[:-1] + n_before, length_B) + within] = ids[
            np.repeat(end_W[first_B[:-1]], length_B) + within
        ]
        return offsets.astype(np.int32), values

    def _equals_library(self, texts: pa.Array, ids: pa.ListArray) -> bool:
        """Whether the ids of a sample of the texts equal those of the library."""
        rows = np.unique(np.linspace(0, len(texts) - 1, _COMPARED_ROWS).astype(np.int64))
        expected = self._tokenizer.encode_batch_fast(texts.take(pa.array(rows)).to_pylist())
        return all(ids[int(row)].as_py() == encoding.ids for row, encoding in zip(rows, expected, strict=True))

    def _find_special_tokens(self) -> tuple[list[int] | None, list[int] | None]:
        """Return the ids that the tokenizer puts before and after every text, such as [CLS] and [SEP]."""
        frames = []
        for probe in ("a", "1"):
            bare = self._tokenizer.encode(probe, add_special_tokens=False).ids
            full = self._tokenizer.encode(probe).ids
            starts = [start for start in range(len(full) - len(bare) + 1) if full[start : start + len(bare)] == bare]
            if not bare or not starts:
                return None, None
            frames.append((full[: starts[0]], full[starts[0] + len(bare) :]))
        return frames[0] if frames[0] == frames[1] else (None, None)


def _ranges(sizes: np.ndarray) -> np.ndarray:
    """Return 0..n-1 for each n in `sizes`, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def _space_ends_every_token(description: dict[str, Any]) -> bool:
    """Whether the tokenizer, by its tokenizer.json, encodes a text as its space-separated words one after the other."""
    truncation = description.get("truncation") or {}
    return (
        description["model"]["type"] in _MODELS
        and _all_of(description.get("pre_tokenizer"), "pretokenizers", _PRE_TOKENIZERS)
        and (description.get("normalizer") is None or _all_of(description["normalizer"], "normalizers", _NORMALIZERS))
        and truncation.get("direction", "Right") == "Right"
        and not any(" " in token["content"] for token in description.get("added_tokens", []))
    )


def _all_of(component: dict[str, Any] | None, members_key: str, types: set[str]) -> bool:
    """Whether a component of a tokenizer.json, or every member of a sequence of them, has one of the `types`."""
    if component is None:
        return False
    if component["type"] == "Sequence":
        return all(_all_of(member, members_key, types) for member in component[members_key])
    return component["type"] in types
