"""Saving a trained torch model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.models.custom import save_custom_model
from trainer.models.new_model import as_new_model


def save_torch_model(model: Any, folder: Path) -> None:
    """Write a `NewModel`, or a model of transformers, as safetensors and JSON.

    A model that a user's function built is saved with its origin, others with `save_pretrained`.
    """
    trained = as_new_model(model)
    if trained.origin is not None:
        save_custom_model(trained.module, trained.origin, folder)
    else:
        trained.module.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
