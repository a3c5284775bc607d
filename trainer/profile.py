"""What a model's rows looked like when it was trained: the figures that live traffic is held against later.

`profile.json` lies beside contract.json in a registered version. Everything in it follows from the rows' content alone:
not from their order, the machine, or numpy's random numbers. Its fields:

    version     1; raised when a field changes its meaning
    part        the part whose rows are described: "train", or "validation" where training rows were not kept
    rows        part -> number of rows
    labels      part -> {label: share of the part's rows}, every label of the contract, also those with share 0
    tokens      lengths of `part`'s rows in tokens, as the model got them, special tokens included:
                {mean, quantiles}; quantiles are 21 values, of 0 %, 5 % ... 100 %
    max_length  tokens at which a row is cut; null where the contract has no such step
    cut_share   share of rows that reach max_length: nearly all of them were cut
    characters  lengths of the raw texts in Unicode characters, before any cleaning: {mean, quantiles}
    unknown     {token_share, row_share}: share of tokens that are the tokenizer's unknown token, and of rows that have
                one; special tokens count as tokens. null where the tokenizer has no unknown token (byte-level ones)
    embedding   a sketch of what the texts are about, or null where the model's input embedding was not given:
                  rows        rows it was made from, at most 2,000: those with the smallest SHA-256 of their token ids
                  dimensions  of the projection: 16
                  seed, from  the projection is `projection(from, seed)`; `from` is the width of the embedding
                  mean, std   16 values each, over those rows (std: population)
                  quantiles   16 lists of 21 values
                  sample      at most 256 of the projected rows, rounded to 4 decimals
                One row's vector is the mean of the trained model's input embeddings over its tokens, then projected.
    columns     other columns' profiles (quantiles of numbers, shares of categories); {} where there are none
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.contract import Contract
from trainer.data.prepared import Rows

FILE = "profile.json"
VERSION = 1
#: The steps of all quantiles, in percent.
PERCENT = tuple(range(0, 101, 5))

SEED = 20_240
DIMENSIONS = 16
_SKETCHED_ROWS = 2_000
_KEPT_ROWS = 256
_DECIMALS = 4


def build(
    parts: Mapping[str, Rows],
    contract: Contract,
    subject: str,
    embedding_VD: np.ndarray | None = None,
    unknown_id: int | None = None,
) -> dict[str, Any]:
    """Return the profile as plain JSON.

    `parts` has "train" and "validation"; `subject` is the role of the text; `embedding_VD` is the trained model's input
    embedding, shape (vocabulary, width), and `unknown_id` its tokenizer's unknown token, or None.
    """
    part = "train" if len(parts["train"]) else "validation"
    rows = parts[part]
    lengths = np.asarray(rows.lengths)
    max_length = max_length_of(contract)
    return {
        "version": VERSION,
        "part": part,
        "rows": {name: len(each) for name, each in parts.items()},
        "labels": {name: label_shares(each, contract.fitted.get("labels", [])) for name, each in parts.items()},
        "tokens": distribution(lengths),
        "max_length": max_length,
        "cut_share": _share(lengths >= max_length) if max_length else None,
        "characters": distribution(rows.char_lengths(subject)),
        "unknown": None if unknown_id is None else unknown_shares(rows, unknown_id),
        "embedding": None if embedding_VD is None else sketch(rows, embedding_VD),
        "columns": {},
    }


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Return mean and quantiles (0, 5 ... 100 %, linear between values) of numbers; null and [] for none."""
    if not len(values):
        return {"mean": None, "quantiles": []}
    return {"mean": _round(values.mean()), "quantiles": _round(np.percentile(values, PERCENT))}


def label_shares(rows: Rows, labels: list[str]) -> dict[str, float]:
    """Return label -> share of `rows`, in the contract's order."""
    counts = np.bincount(rows.target_ids, minlength=len(labels))
    return {label: round(float(counts[at] / max(1, len(rows))), 6) for at, label in enumerate(labels)}


def unknown_shares(rows: Rows, unknown_id: int) -> dict[str, float]:
    """Return the share of tokens that are `unknown_id`, and of rows that have one."""
    found = [int((rows.input_ids(row) == unknown_id).sum()) for row in range(len(rows))]
    n_tokens = int(np.sum(rows.lengths, dtype=np.int64))
    return {
        "token_share": round(sum(found) / max(1, n_tokens), 6),
        "row_share": _share(np.array(found) > 0),
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
        return hashlib.sha256(np.ascontiguousarray(rows.input_ids(row), dtype="<i4").tobytes()).digest()

    chosen = [row for _, row in heapq.nsmallest(_SKETCHED_ROWS, ((digest(row), row) for row in range(len(rows))))]
    vectors = project([rows.input_ids(row) for row in chosen], embedding_VD)
    return {
        "rows": len(chosen),
        "dimensions": DIMENSIONS,
        "seed": SEED,
        "from": int(embedding_VD.shape[1]),
        "mean": _round(vectors.mean(axis=0)) if chosen else [],
        "std": _round(vectors.std(axis=0)) if chosen else [],
        "quantiles": _round(np.percentile(vectors, PERCENT, axis=0).T) if chosen else [],
        "sample": _round(vectors[:_KEPT_ROWS]),
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


def _share(chosen: np.ndarray) -> float:
    return round(float(chosen.mean()), 6) if len(chosen) else 0.0


def _round(values: Any) -> Any:
    # Adding 0.0 makes -0.0 a plain 0.0.
    return (np.round(np.asarray(values, dtype=np.float64), _DECIMALS) + 0.0).tolist()
