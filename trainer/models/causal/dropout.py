"""Dropout in causal models: rows side by side have no masks of their own, so it is refused."""

from __future__ import annotations

from typing import Any

from cluster.errors import ModelError

#: The names of dropout rates in transformers' configs.
DROPOUT_KEYS = (
    "attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "dropout", "activation_dropout", "residual_dropout", "embedding_dropout",
)  # fmt: skip


def without_dropout(config: Any) -> dict[str, float]:
    """Return the changes that set every dropout rate of a transformers config to 0."""
    return {name: 0.0 for name in DROPOUT_KEYS if getattr(config, name, 0.0)}


def refuse_dropout(config: Any) -> None:
    """Raise `ModelError` if a transformers config has dropout: its masks would depend on the rows beside a row."""
    for name in without_dropout(config):
        raise ModelError(
            f"the model has {name}={getattr(config, name)}, and raymill trains language models without dropout: rows lie "
            "side by side, and a mask would depend on a row's neighbors",
            "set `model.dropout: 0`",
        )
