"""New language models from `model.config`: an architecture of transformers with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cluster.errors import SpecError, suggest
from trainer.models.decoder.register import register_decoder
from trainer.models.pretrained import model_without_weights, silence_transformers

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

#: What a new model's config takes from the tokenizer. A value in `model.config` could contradict it.
TOKENIZER_KEYS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
_NOT_KEYS = {"transformers_version", "architectures", "dtype"}


def new_causal_config(values: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> PretrainedConfig:
    """Return the transformers config of `model.config`; `tokenizer` gives the values of `TOKENIZER_KEYS`.

    Raises `SpecError` if it is not the config of a causal language model.
    """
    from transformers import AutoConfig

    register_decoder()
    own = dict(values)
    model_type = own.pop("model_type", None)
    known_types = causal_model_types()
    if model_type is None:
        raise SpecError("model.config has no model_type", "add one, for example `model_type: llama`")
    if model_type not in known_types:
        raise SpecError(
            f"model.config.model_type={model_type!r} is not a causal language model",
            suggest(str(model_type), known_types),
        )
    default = AutoConfig.for_model(model_type)
    known = {*default.to_dict(), *default.attribute_map} - _NOT_KEYS
    for key in own:
        if key in TOKENIZER_KEYS:
            raise SpecError(f"model.config.{key} comes from the tokenizer", "remove it from `model.config`")
        if key not in known:
            raise SpecError(f"model.config.{key} is not a key of transformers' {model_type}", suggest(key, known))
    sizes = {key: tokenizer.get(key) for key in TOKENIZER_KEYS}
    try:
        return AutoConfig.for_model(model_type, **sizes, **own)
    except Exception as error:  # transformers' configs raise whatever their own checks raise
        message = " ".join(line.strip() for line in str(error).splitlines()) or repr(error)
        raise SpecError(
            f"model.config is not a valid config of transformers' {model_type}: {message[:500]}",
            "correct the keys of `model.config` that transformers' message names",
        ) from error


def causal_model_types() -> set[str]:
    """Return the values of `model_type` for which transformers has a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from trainer.models.decoder.config import MODEL_TYPE

    return {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_TYPE}


def new_causal_model(config: PretrainedConfig) -> torch.nn.Module:
    """Return a new model with random weights, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    silence_transformers()
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def count_body_weights(values: Mapping[str, Any]) -> int:
    """Return the number of weights of `model.config` without those that have a row for each token."""
    n_ids = 2**16 + 1  # the size of no other axis
    model = model_without_weights("AutoModelForCausalLM", new_causal_config(values, {"vocab_size": n_ids}))
    return sum(value.numel() for value in model.parameters() if n_ids not in value.shape)
