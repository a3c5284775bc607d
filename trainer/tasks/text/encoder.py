"""The encoder of texts. It makes token ids with the `tokenizers` library, without transformers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import ModelError
from trainer.tasks.encoder import Columns, Encoded, Encoder
from trainer.tasks.text.word_ids import WordTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
# transformers' AutoTokenizer reads these, raymill does not: they make the folder usable without raymill.
_EXTRA_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class TextEncoder(Encoder):
    """Turns one or two texts into token ids. It needs no transformers, so a replica can start without it."""

    def __init__(self, path: Path, max_length: int, roles: Sequence[str]) -> None:
        self._roles = roles
        self._tokenizer = load_tokenizer(path)
        self._tokenizer.enable_truncation(max_length)
        # In a pair, the first separator must be the real one: a literal `[SEP]` inside a text must not count.
        self._tokenizer.encode_special_tokens = len(roles) > 1
        self._word_tokenizer: WordTokenizer | None = None
        self._max_length = max_length

    def __call__(self, columns: Columns) -> Encoded:
        texts = [columns[role] for role in self._roles]
        values = list(texts[0]) if len(texts) == 1 else list(zip(*texts, strict=True))
        encodings = self._tokenizer.encode_batch_fast(values)
        return Encoded([np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings])

    def length(self, row: Sequence[Any]) -> int:
        self._tokenizer.no_truncation()
        try:
            return len(self._tokenizer.encode(row[0], *row[1:]).ids)
        finally:
            self._tokenizer.enable_truncation(self._max_length)

    def encode_block(self, rows: pa.Table) -> tuple[pa.ListArray, list[str | None] | None]:
        if len(self._roles) == 1:
            self._word_tokenizer = self._word_tokenizer or WordTokenizer(self._tokenizer, self._max_length)
            texts = rows[self._roles[0]].combine_chunks()
            ids = self._word_tokenizer.encode_column(texts.chunk(0) if isinstance(texts, pa.ChunkedArray) else texts)
            if ids is not None:
                return ids, None
        return super().encode_block(rows)


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, without padding."""
    from tokenizers import Tokenizer

    tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    return tokenizer


def copy_tokenizer(base: Path, folder: Path) -> None:
    """Write the tokenizer of the base model into `folder`. Raises `ModelError` if it cannot be read."""
    for name in _EXTRA_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if (base / TOKENIZER_FILE).is_file():
        shutil.copyfile(base / TOKENIZER_FILE, folder / TOKENIZER_FILE)
        return
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, local_files_only=True)
        tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    except Exception as error:
        raise ModelError(
            f"the tokenizer in {base} cannot be read: {error}", "save a tokenizer.json into this folder"
        ) from error


def separator_id(path: Path) -> int | None:
    """Return the id of the separator: the second text of a pair begins after the first token with this id.

    None if the tokenizer gives pairs no token types.
    """
    encoding = load_tokenizer(path).encode("a", "b")
    return int(encoding.ids[encoding.type_ids.index(1) - 1]) if 1 in encoding.type_ids else None
