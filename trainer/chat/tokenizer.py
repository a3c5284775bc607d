"""Token ids of segments of text, by a tokenizer.json alone, in training and in serving."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import ModelError
from cluster.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
# Text before a segment, so that a tokenizer that puts a space before a text puts it before this one.
_BEFORE = "\n"


class SegmentTokenizer:
    """Tokenizes segments, each by itself. It adds no special token: templates and the rules of a row do.

    In `encode`, special tokens are control tokens, as templates write them; in `encode_plain` they are text.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `ModelError` if the folder has no tokenizer.json that can be read."""
        self.backend = load_backend(folder)
        self._plain = load_backend(folder)
        self._plain.encode_special_tokens = True
        self._before_ids = self._ids_of([_BEFORE])[0]
        self._adds_space = self._ids_of([_BEFORE + "a"])[0] != [*self._before_ids, *self._ids_of(["a"])[0]]

    @functools.cached_property
    def special_ids(self) -> dict[str, int]:
        """Special token -> id."""
        added = self.backend.get_added_tokens_decoder()
        return {token.content: token_id for token_id, token in added.items() if token.special}

    @property
    def n_tokens(self) -> int:
        """The number of different tokens, added ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(self, texts: Sequence[str], *, follow: bool = False) -> list[list[int]]:
        """Return the ids of each text. `follow`: the texts come after others, so no space is put before them."""
        if not (follow and self._adds_space):
            return self._ids_of(texts)
        n_before = len(self._before_ids)
        return [ids[n_before:] for ids in self._ids_of([_BEFORE + text for text in texts])]

    def encode_plain(self, text: str, *, follow: bool = False) -> list[int]:
        """Return the ids of a text in which special tokens are text."""
        is_led = follow and self._adds_space
        before, n_before = (_BEFORE, len(self._before_ids)) if is_led else ("", 0)
        ids: list[int] = self._plain.encode(before + text, add_special_tokens=False).ids
        return ids[n_before:]

    def starts(self, text: str) -> list[int]:
        """Return the character at which each token of a text begins."""
        return [start for start, _ in self.backend.encode(text, add_special_tokens=False).offsets]

    def _ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int] | np.ndarray, *, skip_special: bool = False) -> str:
        """Return the text of `ids`."""
        text: str = self.backend.decode([int(token) for token in ids], skip_special_tokens=skip_special)
        return text


def load_backend(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder, without truncation and padding. Raises `ModelError` if it cannot be read."""
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise ModelError(f"{path} cannot be read: {error}", "save the base model's tokenizer again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def special_tokens(folder: Path) -> dict[str, str]:
    """Return the special tokens that transformers gives a template: `bos_token`, `eos_token` and so on."""
    path = folder / CONFIG_FILE
    config: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    tokens = {}
    for name in ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"):
        value = config.get(name)
        content = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(content, str):
            tokens[name] = content
    return tokens


def first_added_id(backend: Tokenizer) -> int | None:
    """Return the id that the tokenizer puts before every text, such as that of BOS; None if it puts none."""
    bare = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a").ids
    return int(full[0]) if full[1 : len(bare) + 1] == bare else None
