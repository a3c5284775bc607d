"""What a profile says of texts, beside what `trainer.tasks.profile` says of all rows. Its fields:

tokens      lengths of the described rows in tokens, as the model got them, special tokens included:
            {mean, quantiles}; quantiles are 21 values, of 0 %, 5 % ... 100 %
max_length  tokens at which a row is cut
cut_share   share of rows that reach max_length: nearly all of them were cut
characters  lengths of the raw texts in Unicode characters, before any cleaning (of a pair: together)
unknown     {token_share, row_share}: share of tokens that are the tokenizer's unknown token, and of rows that have
            one; special tokens count as tokens. null where the tokenizer has no unknown token (byte-level ones)
embedding   a sketch of what the texts are about, null for a model without an input embedding:
              rows        rows it was made from, at most 2,000: those with the smallest SHA-256 of their token ids
              dimensions  of the projection: 16
              seed, from  the projection is `projection(from, seed)`; `from` is the width of the embedding
              mean, std   16 values each, over those rows (std: population)
              quantiles   16 lists of 21 values
              sample      at most 256 of the projected rows, rounded to 4 decimals
            One row's vector is the mean of the trained model's input embeddings over its tokens, then projected.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.contract.contract import Contract
from trainer.tasks.profile import PERCENT, described_part, distribution, rounded, share
from trainer.tasks.rows import Rows

SEED = 20_240
DIMENSIONS = 16
_SKETCHED_ROWS = 2_000
_KEPT_ROWS = 256


def build(
    parts: Mapping[str, Rows],
    contract: Contract,
    roles: Sequence[str],
    embedding_VD: np.ndarray | None,
    tokenizer: dict[str, Any],
) -> dict[str, Any]:
    """Return the fields as plain JSON.

    `roles` are those of the texts; `embedding_VD` is the trained model's input embedding, shape (vocabulary, width), if any, and
    `tokenizer` the content of its tokenizer.json.
    """
    rows = parts[described_part(parts)]
    lengths = np.asarray(rows.lengths)
    max_length = max_length_of(contract)
    unknown_id = unknown_id_of(tokenizer)
    return {
        "tokens": distribution(lengths),
        "max_length": max_length,
        "cut_share": share(lengths >= max_length) if max_length else None,
        "characters": distribution(np.sum([rows.char_lengths(role) for role in roles], axis=0)),
        "unknown": None if unknown_id is None else unknown_shares(rows, unknown_id),
        "embedding": None if embedding_VD is None else sketch(rows, embedding_VD),
    }


def unknown_shares(rows: Rows, unknown_id: int) -> dict[str, float]:
    """Return the share of tokens that are `unknown_id`, and of rows that have one."""
    found = [int((rows.inputs(row) == unknown_id).sum()) for row in range(len(rows))]
    n_tokens = int(np.sum(rows.lengths, dtype=np.int64))
    return {
        "token_share": round(sum(found) / max(1, n_tokens), 6),
        "row_share": share(np.array(found) > 0),
    }


def unknown_id_of(tokenizer: dict[str, Any]) -> int | None:
    """Return the id of the unknown token of a tokenizer.json, or None where it has none."""
    model = tokenizer.get("model", {})
    if isinstance(model.get("unk_id"), int):  # Unigram names it by its place
        return int(model["unk_id"])
    token = model.get("unk_token")
    added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])}
    vocabulary = model.get("vocab", {})
    found = added.get(token, vocabulary.get(token) if isinstance(vocabulary, dict) else None)
    return found if isinstance(found, int) else None


def max_length_of(contract: Contract) -> int | None:
    """Return the tokens at which the contract cuts a row; None where it has no such step."""
    found = next((step.params.get("max_length") for step in contract.steps if step.name == "tokenize"), None)
    return found if isinstance(found, int) else None


def sketch(rows: Rows, embedding_VD: np.ndarray) -> dict[str, Any]:
    """Return the embedding sketch of at most 2,000 of `rows`, chosen by their content."""

    def digest(row: int) -> bytes:
        return hashlib.sha256(np.ascontiguousarray(rows.inputs(row), dtype="<i4").tobytes()).digest()

    chosen = [row for _, row in heapq.nsmallest(_SKETCHED_ROWS, ((digest(row), row) for row in range(len(rows))))]
    vectors = project([rows.inputs(row) for row in chosen], embedding_VD)
    return {
        "rows": len(chosen),
        "dimensions": DIMENSIONS,
        "seed": SEED,
        "from": int(embedding_VD.shape[1]),
        "mean": rounded(vectors.mean(axis=0)) if chosen else [],
        "std": rounded(vectors.std(axis=0)) if chosen else [],
        "quantiles": rounded(np.percentile(vectors, PERCENT, axis=0).T) if chosen else [],
        "sample": rounded(vectors[:_KEPT_ROWS]),
    }


def project(inputs: list[np.ndarray], embedding_VD: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Return float64 vectors, shape (rows, 16), of rows of token ids: mean input embedding, then `projection`.

    Live traffic has to go through this very function to be compared with a profile.
    """
    width = embedding_VD.shape[1]
    means = np.zeros((len(inputs), width))
    for row, ids in enumerate(inputs):
        if len(ids):
            means[row] = embedding_VD[ids].mean(axis=0, dtype=np.float64)
    return means @ projection(width, seed)


def projection(width: int, seed: int = SEED) -> np.ndarray:
    """Return the float64 projection, shape (width, 16): random signs, scaled so that distances keep their size.

    The signs are bits of SHAKE-256, so that they are the same in every version of numpy.
    """
    n_signs = width * DIMENSIONS
    bits = np.frombuffer(hashlib.shake_256(f"raymill projection {seed}".encode()).digest((n_signs + 7) // 8), np.uint8)
    signs = 1.0 - 2.0 * np.unpackbits(bits)[:n_signs]
    found: np.ndarray = signs.reshape(width, DIMENSIONS) / np.sqrt(DIMENSIONS)
    return found
