"""Loading a model of transformers from a folder: safetensors only, no code of others, no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError

if TYPE_CHECKING:
    import torch


def load(auto_class: str, folder: Path, **config: Any) -> torch.nn.Module:
    """Return the model in `folder` as `transformers.<auto_class>` reads it, in fp32; `config` overrides its config.json.

    Its `raymill_new` names the parameters that `folder` has no values for: its head, mostly.
    Raises `ModelError` if it cannot be loaded.
    """
    import torch
    import transformers

    quiet()
    try:
        model, info = getattr(transformers, auto_class).from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            **config,
        )
    except Exception as error:  # transformers and safetensors raise their own kinds, plain Exception among them
        raise ModelError(
            f"{folder} cannot be loaded as a model: {error}", "check model.base, or train again"
        ) from error
    found: torch.nn.Module = model
    mismatched = {key if isinstance(key, str) else key[0] for key in info.get("mismatched_keys", ())}
    found.raymill_new = sorted({*info.get("missing_keys", ()), *mismatched})  # type: ignore[assignment]
    return found


def new_parameters(model: torch.nn.Module) -> list[str] | None:
    """Return the names of the parameters that the base model had no values for; None where that is not known."""
    found: list[str] | None = getattr(model, "raymill_new", None)
    return found


def quiet() -> None:
    """Turn transformers' warnings and progress bars off: raymill shows one line a stage."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
