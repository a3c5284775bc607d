"""Loading a transformers model from a folder: safetensors only, no remote code, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from trainer.models.decoder.register import register_decoder
from trainer.models.new_model import NewModel


def load_pretrained(auto_class: str, folder: Path, **config: Any) -> NewModel:
    """Return the model in `folder` as `transformers.<auto_class>` reads it, in fp32.

    `config` overrides values of its config.json. `new_parameters` of the result names the parameters without values in
    `folder`, mostly the head's. Raises `ModelError` if the model cannot be loaded.
    """
    import torch
    import transformers

    silence_transformers()
    register_decoder()
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
    except Exception as error:  # transformers and safetensors raise many types, including plain Exception
        raise ModelError(
            f"{folder} cannot be loaded as a model: {error}", "check `model.base`, or train again"
        ) from error
    mismatched = {key if isinstance(key, str) else key[0] for key in info.get("mismatched_keys", ())}
    return NewModel(model, tuple(sorted({*info.get("missing_keys", ()), *mismatched})))


def model_without_weights(auto_class: str, config: Any) -> Any:
    """Return the model of a transformers `config` on torch's device `meta`.

    Its tensors have shapes but no values, and take no memory.
    """
    import torch
    import transformers

    silence_transformers()
    register_decoder()
    with torch.device("meta"):
        return getattr(transformers, auto_class).from_config(config)


def silence_transformers() -> None:
    """Turn off the warnings and progress bars of transformers; raymill shows one line per stage."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
