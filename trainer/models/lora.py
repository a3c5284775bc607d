"""LoRA: small matrices beside the weights learn, the weights themselves stay (Hu et al. 2021), through peft.

Saved `merged` a model is a plain one. Saved as `adapter`, its folder holds the small matrices and the head, and names the
base model that it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError, SpecError
from cluster.files import read_json, write_json
from trainer.models.pretrained import new_parameters

if TYPE_CHECKING:
    import torch

    from trainer.spec.model import Lora
    from trainer.spec.run import RunSpec

#: Beside an adapter: which base model it belongs to.
BASE = "base.json"


def check(lora: Lora) -> None:
    """Raise `ModelError` where peft is missing."""
    _peft()


def add(model: torch.nn.Module, lora: Lora) -> Any:
    """Put the small matrices into `model` and freeze all else but what is new in it; returns peft's handle of it."""
    peft = _peft()
    # What begins at random has to learn, and to be saved: the head, and the pooler where the base model has none.
    heads = sorted({name.rpartition(".")[0] for name in new_parameters(model) or ()})
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        modules_to_save=heads or None,
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise SpecError(
            f"model.lora.targets={lora.targets} names no layer of this model that can have small matrices",
            "name the ends of its layers' names, as targets: [query, value]",
        ) from error


def inner(handle: Any) -> torch.nn.Module:
    """Return the model that `handle` was made of."""
    found: torch.nn.Module = handle.get_base_model()
    return found


def merged(handle: Any) -> torch.nn.Module:
    """Return the plain model, the small matrices added to its weights. `handle` is used up."""
    found: torch.nn.Module = handle.merge_and_unload(safe_merge=True)
    return found


def save(handle: Any, spec: RunSpec, folder: Path) -> None:
    """Write the adapter, and which base model it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    handle.save_pretrained(folder, safe_serialization=True)
    write_json(folder / BASE, {"base": spec.model.base})


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter and no whole model."""
    return (folder / BASE).is_file()


def base_of(folder: Path) -> str:
    """Return the base model that the adapter in `folder` needs."""
    found: str = read_json(folder / BASE)["base"]
    return found


def load(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """Return `model`, the base with a new head, with the adapter in `folder` merged into it."""
    handle = _peft().PeftModel.from_pretrained(model, folder, local_files_only=True)
    return merged(handle)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError("model.lora needs peft", "pip install raymill[lora]") from error
    return peft
