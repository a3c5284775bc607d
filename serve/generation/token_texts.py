"""The bytes and the text of single tokens, for log-probabilities. A token may be a part of a character only."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A byte that a vocabulary of pieces of text has no piece for.
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_START = "\u2581"


class TokenTexts:
    """The bytes of each token of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        decoder = json.dumps(json.loads(tokenizer.to_str()).get("decoder"))
        self._byte_of = _byte_characters() if "ByteLevel" in decoder else {}
        self._special = set(tokenizer.get_added_tokens_decoder())
        self._bytes: dict[int, bytes] = {}

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes of a token; a special token has those of its name."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._find_bytes(token_id)
        return known

    def name_of(self, token_id: int) -> str:
        """Return the text of a token; one that is a part of a character is written as its bytes: `bytes:\\xe2\\x82`."""
        data = self.bytes_of(token_id)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def _find_bytes(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id)
        if token is None:  # an id of the model beyond the tokenizer's vocabulary
            return b""
        if token_id in self._special:
            return token.encode()
        if self._byte_of:
            return bytes(self._byte_of[character] for character in token if character in self._byte_of)
        if single := _BYTE.fullmatch(token):
            return bytes([int(single[1], 16)])
        return token.replace(_WORD_START, " ").encode()


def _byte_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
