"""The fields of `profile.json` that describe texts, besides those in `trainer.tasks.profile`:

tokens      lengths of the described rows in tokens, as model inputs, with special tokens:
            {mean, quantiles}; quantiles are 21 values, for 0 %, 5 % ... 100 %
max_length  the length in tokens to which a row is truncated
cut_share   the share of rows with max_length tokens; nearly all of them are truncated
characters  lengths of the raw texts in Unicode characters, before any cleaning (for a pair, both texts together)
unknown     {token_share, row_share}: the share of tokens that are the tokenizer's unknown token, and of rows that have
            one; special tokens count as tokens. null if the tokenizer has no unknown token (byte-level ones)
embedding   a sketch of the texts' topics, null for a model without an input embedding:
              rows        the number of rows in the sketch, at most 2,000: those with the smallest SHA-256 of their ids
              dimensions  the dimensions of the projection: 16
              seed, from  the projection is `projection(from, seed)`; `from` is the width of the embedding
              mean, std   16 values each, over those rows (std: population)
              quantiles   16 lists of 21 values
              sample      at most 256 of the projected rows, rounded to 4 decimals
            A row is projected as one vector: the mean of the trained model's input embeddings over its tokens.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.contract.contract import Contract
from trainer.tasks.profile import PERCENT, described_part, distribution, round_values, share_of_true
from trainer.tasks.rows import RowsView

SEED = 20_240
DIMENSIONS = 16
_SKETCH_ROWS = 2_000
_SAMPLE_ROWS = 256


def build_text_profile(
    parts: Mapping[str, RowsView],
    contract: Contract,
    roles: Sequence[str],
    embedding_VD: np.ndarray | None,
    tokenizer: dict[str, Any],
) -> dict[str, Any]:
    """Return the fields as plain JSON.

    `roles` are the roles of the texts, `embedding_VD` is the trained model's input embedding (shape: vocabulary, width)
    or None, and `tokenizer` is the content of its tokenizer.json.
    """
    rows = parts[described_part(parts)]
    lengths = np.asarray(rows.lengths)
    max_length = max_length_of(contract)
    unknown_id = unknown_token_id(tokenizer)
    return {
        "tokens": distribution(lengths),
        "max_length": max_length,
        "cut_share": share_of_true(lengths >= max_length) if max_length else None,
        "characters": distribution(np.sum([rows.char_lengths(role) for role in roles], axis=0)),
        "unknown": None if unknown_id is None else unknown_shares(rows, unknown_id),
        "embedding": None if embedding_VD is None else sketch_embeddings(rows, embedding_VD),
    }


def unknown_shares(rows: RowsView, unknown_id: int) -> dict[str, float]:
    """Return the share of tokens that are `unknown_id`, and of rows that have one."""
    unknown_B = [int((rows.inputs(row) == unknown_id).sum()) for row in range(len(rows))]
    n_tokens = int(np.sum(rows.lengths, dtype=np.int64))
    return {
        "token_share": round(sum(unknown_B) / max(1, n_tokens), 6),
        "row_share": share_of_true(np.array(unknown_B) > 0),
    }


def unknown_token_id(tokenizer: dict[str, Any]) -> int | None:
    """Return the id of the unknown token in a tokenizer.json, or None if it has none."""
    model = tokenizer.get("model", {})
    if isinstance(model.get("unk_id"), int):  # Unigram stores the id itself
        return int(model["unk_id"])
    token = model.get("unk_token")
    added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])}
    vocabulary = model.get("vocab", {})
    token_id = added.get(token, vocabulary.get(token) if isinstance(vocabulary, dict) else None)
    return token_id if isinstance(token_id, int) else None


def max_length_of(contract: Contract) -> int | None:
    """Return the length in tokens to which the contract truncates a row; None if it has no such step."""
    length = next((step.params.get("max_length") for step in contract.steps if step.name == "tokenize"), None)
    return length if isinstance(length, int) else None


def sketch_embeddings(rows: RowsView, embedding_VD: np.ndarray) -> dict[str, Any]:
    """Return the embedding sketch of at most 2,000 of `rows`, selected by their content."""

    def digest(row: int) -> bytes:
        return hashlib.sha256(np.ascontiguousarray(rows.inputs(row), dtype="<i4").tobytes()).digest()

    selected = [row for _, row in heapq.nsmallest(_SKETCH_ROWS, ((digest(row), row) for row in range(len(rows))))]
    vectors = project_inputs([rows.inputs(row) for row in selected], embedding_VD)
    return {
        "rows": len(selected),
        "dimensions": DIMENSIONS,
        "seed": SEED,
        "from": int(embedding_VD.shape[1]),
        "mean": round_values(vectors.mean(axis=0)) if selected else [],
        "std": round_values(vectors.std(axis=0)) if selected else [],
        "quantiles": round_values(np.percentile(vectors, PERCENT, axis=0).T) if selected else [],
        "sample": round_values(vectors[:_SAMPLE_ROWS]),
    }


def project_inputs(inputs: list[np.ndarray], embedding_VD: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Return the projected mean input embedding of each row of token ids, float64, shape (rows, 16).

    To compare other texts with a profile, project them with this function.
    """
    width = embedding_VD.shape[1]
    means = np.zeros((len(inputs), width))
    for row, ids in enumerate(inputs):
        if len(ids):
            means[row] = embedding_VD[ids].mean(axis=0, dtype=np.float64)
    return means @ projection(width, seed)


def projection(width: int, seed: int = SEED) -> np.ndarray:
    """Return the float64 projection, shape (width, 16): random signs, scaled so that distances keep their size.

    The signs are bits of SHAKE-256, so they are the same in every version of numpy.
    """
    n_signs = width * DIMENSIONS
    bits = np.frombuffer(hashlib.shake_256(f"raymill projection {seed}".encode()).digest((n_signs + 7) // 8), np.uint8)
    signs = 1.0 - 2.0 * np.unpackbits(bits)[:n_signs]
    matrix: np.ndarray = signs.reshape(width, DIMENSIONS) / np.sqrt(DIMENSIONS)
    return matrix
