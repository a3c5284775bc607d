"""The base model of a checkpoint that is an adapter only."""

from __future__ import annotations

from pathlib import Path

from trainer.models import lora
from trainer.models.base_model import locate_base_model


def adapter_base(folder: Path) -> Path | None:
    """Return the folder of the base model that the adapter in `folder` needs; None if `folder` holds a whole model.

    Raises `SpecError` if the base model is nowhere.
    """
    if not lora.holds_adapter(folder):
        return None
    return Path(locate_base_model(lora.base_of_adapter(folder))).resolve()
