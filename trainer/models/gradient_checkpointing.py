"""Gradient checkpointing: layers are computed again in the backward pass instead of being stored."""

from __future__ import annotations

from typing import Any

from cluster.errors import SpecError


def enable_gradient_checkpointing(model: Any) -> None:
    """Let a model of transformers compute its layers again. Raises `SpecError` for a model that cannot."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise SpecError(
            "train.gradient_checkpointing: this model does not support it", "remove `train.gradient_checkpointing`"
        )
    if hasattr(model, "activation_checkpointing_enable"):  # the method's name in transformers since 5.2x
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})
