"""A model of the user's own, `model.factory: my_module:build`: made by their function, kept as safetensors beside its source.

`build(folder, n_outputs)` returns a torch module that is called with what the task collates and gives an object with
`logits`. `folder` holds the base model while training (None without a base), and in serving the model's own folder, which has
the base's config.json: weights are put in afterwards.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError, SpecError
from cluster.files import read_json, write_bytes, write_json
from trainer.contract import user_code
from trainer.models import base_model

if TYPE_CHECKING:
    import torch

    from trainer.spec.run import RunSpec

#: Says which function makes the model, and the digest of its source.
FILE = "own_model.json"
_KEY = "model.factory"
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def check(spec: RunSpec) -> None:
    """Raise `SpecError` where the function is not there, or not the user's."""
    if spec.model.factory:
        user_code.find(spec.model.factory, _KEY)


def build(spec: RunSpec, n_outputs: int) -> torch.nn.Module:
    """Return a new model. Raises `SpecError` if the function gives none."""
    assert spec.model.factory is not None
    source = user_code.find(spec.model.factory, _KEY)
    base = base_model.locate(spec.model.base) if spec.model.base else None
    model = _module(user_code.load(source)(base, n_outputs), spec.model.factory)
    model.raymill_source = source  # what `save` writes down
    model.raymill_base = base
    model.raymill_outputs = n_outputs
    return model


def is_own(model: Any) -> bool:
    """Whether `build` made the model."""
    return hasattr(model, "raymill_source")


def save(model: Any, folder: Path) -> None:
    """Write weights, config, and what made the model. No pickle."""
    from safetensors.torch import save_model

    source: user_code.Source = model.raymill_source
    save_model(model, str(folder / _WEIGHTS))
    if model.raymill_base is not None:
        shutil.copyfile(model.raymill_base / _CONFIG, folder / _CONFIG)
    copy = _copy_of(source)
    write_bytes(folder / copy, source.content)
    made = {"factory": source.path, "source_sha256": source.digest, "copy": copy, "n_outputs": model.raymill_outputs}
    write_json(folder / FILE, made)


def is_saved_in(folder: Path) -> bool:
    """Whether `folder` holds a model that `save` wrote."""
    return (folder / FILE).is_file()


def load(folder: Path) -> torch.nn.Module:
    """Return the model in `folder`, if its function's source is the one it was trained with. Raises `ModelError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    made = read_json(folder / FILE)
    source = user_code.pinned(made["factory"], _KEY, made["source_sha256"], made["copy"])
    model = _module(user_code.load_pinned(source)(folder, made["n_outputs"]), made["factory"])
    try:
        load_model(model, str(folder / _WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(f"{folder / _WEIGHTS} does not fit {made['factory']}: {error}", "train again") from error
    return model


def _module(made: Any, path: str) -> Any:
    import torch

    if not isinstance(made, torch.nn.Module):
        raise SpecError(f"{_KEY}: {path} returned {type(made).__name__}, no torch module", "return a torch.nn.Module")
    return made


def _copy_of(source: user_code.Source) -> str:
    return f"model_{source.module}.py"
