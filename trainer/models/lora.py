"""LoRA with peft: train small matrices beside the weights and leave the weights unchanged (Hu et al. 2021).

The settings are `model.lora` in trainer/spec/model.py. With `save: merged` the result is a plain model. With
`save: adapter` the folder holds the small matrices and the head, and names the base model that they need.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError, SpecError, suggest
from cluster.files import read_json, write_json

if TYPE_CHECKING:
    import torch

    from trainer.spec.model import LoraSpec
    from trainer.spec.run import RunSpec

#: The file that names the base model of the adapter in the same folder.
BASE_FILE = "base.json"


def require_peft() -> None:
    """Raise `ModelError` if peft is not installed."""
    _peft()


def add_adapters(model: torch.nn.Module, spec: LoraSpec, new_parameters: Collection[str]) -> Any:
    """Add small matrices to `model` and freeze the rest, except for its `new_parameters`. Returns peft's model.

    Raises `SpecError` for targets or `modules_to_save` that the model does not have.
    """
    from trainer.models.lora_linear import install_lora_products

    peft = _peft()
    modules = [name for name, _ in model.named_modules()]
    for required in spec.modules_to_save:
        if not any(name == required or name.endswith(f".{required}") for name in modules):
            raise SpecError(
                f"model.lora.modules_to_save: this model has no layer called {required!r}",
                suggest(required, modules[:400]),
            )
    # Parameters without pre-trained values must learn and be saved: the head, and the pooler if the base has none.
    new_modules = sorted({name.rpartition(".")[0] for name in new_parameters})
    config = peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha if spec.alpha is not None else 2 * spec.rank,
        lora_dropout=spec.dropout,
        target_modules=spec.targets,
        modules_to_save=[*new_modules, *spec.modules_to_save] or None,
        use_rslora=spec.rslora,
        use_dora=spec.dora,
        task_type="CAUSAL_LM" if is_causal(model) else None,
    )
    try:
        adapted = peft.get_peft_model(model, config)
    except ValueError as error:
        raise SpecError(
            f"model.lora.targets={spec.targets} matches no layer of this model that LoRA can extend",
            "give the ends of layer names, for example `targets: [query, value]`",
        ) from error
    install_lora_products(model)
    return adapted


@contextlib.contextmanager
def adapters_disabled(model: torch.nn.Module) -> Iterator[None]:
    """Let a model with small matrices compute as its base while the block runs."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def is_causal(model: torch.nn.Module) -> bool:
    """Whether `model` is a causal language model; peft then leaves its output layer out of `all-linear`."""
    return type(model).__name__.endswith("ForCausalLM")


def base_module(peft_model: Any) -> torch.nn.Module:
    """Return the transformers model inside `peft_model`."""
    module: torch.nn.Module = peft_model.get_base_model()
    return module


def merge_adapters(peft_model: Any) -> torch.nn.Module:
    """Return the plain model with the small matrices added to its weights. `peft_model` cannot be used afterwards."""
    module: torch.nn.Module = peft_model.merge_and_unload(safe_merge=True)
    return module


def save_adapter(peft_model: Any, spec: RunSpec, folder: Path) -> None:
    """Write the adapter and the name of its base model."""
    folder.mkdir(parents=True, exist_ok=True)
    peft_model.save_pretrained(folder, safe_serialization=True)
    write_json(folder / BASE_FILE, {"base": spec.model.base})


def holds_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter and not a full model."""
    return (folder / BASE_FILE).is_file()


def base_of_adapter(folder: Path) -> str:
    """Return the base model that the adapter in `folder` needs."""
    base: str = read_json(folder / BASE_FILE)["base"]
    return base


def load_adapter(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """Return `model`, the base with a new head, with the adapter in `folder` merged into it."""
    return merge_adapters(_peft().PeftModel.from_pretrained(model, folder, local_files_only=True))


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError("model.lora needs peft", "pip install 'raymill[lora]'") from error
    return peft
