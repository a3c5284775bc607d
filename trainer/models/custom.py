"""Models that a user's function builds (`model.factory: my_module:build`), saved as safetensors beside their source.

`build(folder, n_outputs)` returns a torch module that takes what the task collates and returns an object with `logits`.
In training, `folder` is the base model's folder (None without a base). In serving, it is the model's own folder, which
has the base's config.json; the trained weights are loaded afterwards.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError, SpecError
from cluster.files import read_json, write_bytes, write_json
from trainer.contract import user_code
from trainer.models.base_model import locate_base_model
from trainer.models.new_model import FactoryOrigin, NewModel

if TYPE_CHECKING:
    import torch

    from trainer.spec.run import RunSpec

#: The file with the name of the function that builds the model, and the digest of its source.
ORIGIN_FILE = "own_model.json"
_KEY = "model.factory"
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def check_factory(spec: RunSpec) -> None:
    """Raise `SpecError` if `model.factory` is set and its function does not exist or is not the user's."""
    if spec.model.factory:
        user_code.find_source(spec.model.factory, _KEY)


def build_custom_model(spec: RunSpec, n_outputs: int) -> NewModel:
    """Return a new model. Raises `SpecError` if the function does not return a torch module."""
    assert spec.model.factory is not None
    source = user_code.find_source(spec.model.factory, _KEY)
    base = locate_base_model(spec.model.base) if spec.model.base else None
    module = _require_module(user_code.load_user_object(source)(base, n_outputs), spec.model.factory)
    return NewModel(module, origin=FactoryOrigin(source, base, n_outputs))


def save_custom_model(module: torch.nn.Module, origin: FactoryOrigin, folder: Path) -> None:
    """Write weights, config and origin of a model, as safetensors and JSON, without pickle."""
    from safetensors.torch import save_model

    save_model(module, str(folder / _WEIGHTS))
    if origin.base is not None:
        shutil.copyfile(origin.base / _CONFIG, folder / _CONFIG)
    source, copy = origin.source, f"model_{origin.source.module}.py"
    write_bytes(folder / copy, source.content)
    description = {
        "factory": source.path,
        "source_sha256": source.digest,
        "copy": copy,
        "n_outputs": origin.n_outputs,
    }
    write_json(folder / ORIGIN_FILE, description)


def holds_custom_model(folder: Path) -> bool:
    """Whether `folder` holds a model that `save_custom_model` wrote."""
    return (folder / ORIGIN_FILE).is_file()


def load_custom_model(folder: Path) -> torch.nn.Module:
    """Return the model in `folder`. Raises `ModelError` if its function's source is not the one it was trained with."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    description = read_json(folder / ORIGIN_FILE)
    factory = description["factory"]
    source = user_code.find_pinned_source(factory, _KEY, description["source_sha256"], description["copy"])
    build = user_code.load_pinned_object(source)
    module = _require_module(build(folder, description["n_outputs"]), factory)
    try:
        load_model(module, str(folder / _WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(f"{folder / _WEIGHTS} does not fit {factory}: {error}", "train again") from error
    return module


def _require_module(model: Any, factory: str) -> torch.nn.Module:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise SpecError(
            f"{_KEY}: {factory} returned {type(model).__name__}, not a torch module", "return a torch.nn.Module"
        )
    return model
