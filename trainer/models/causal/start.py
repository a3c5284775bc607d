"""The causal language model that a training starts from: a base model, quantized or not, or a new one from a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.errors import SpecError
from trainer.models.base_model import locate_base_model
from trainer.models.causal.dropout import refuse_dropout, without_dropout
from trainer.models.causal.new_config import new_causal_config, new_causal_model
from trainer.models.causal.packed_forward import use_packed_forward
from trainer.models.causal.quantized import quantized_options
from trainer.models.new_model import NewModel
from trainer.models.pretrained import load_pretrained, model_without_weights
from trainer.spec.chat import TokenizerSpec
from trainer.spec.model import ModelSpec

AUTO_CLASS = "AutoModelForCausalLM"
# Characters of a text in one alphabet.
_CHARACTERS = 256


def start_model(spec: ModelSpec, tokenizer: Mapping[str, Any]) -> NewModel:
    """Return the model of `spec`, which takes packed sequences; `tokenizer` has the facts that a new model needs.

    Raises `ModelError` for a model that cannot be trained here, and `SpecError` for a config that is not valid.
    """
    if spec.lora and spec.lora.dropout:
        raise SpecError(
            f"model.lora.dropout={spec.lora.dropout}: raymill trains language models without dropout, because rows lie side "
            "by side and a mask would depend on a row's neighbors",
            "remove `model.lora.dropout`",
        )
    if spec.config is not None:
        model = NewModel(new_causal_model(new_causal_config(spec.config, tokenizer)))
    else:
        assert spec.base is not None  # checked by check_spec
        model = load_pretrained(AUTO_CLASS, locate_base_model(spec.base), **_changes(spec))
    refuse_dropout(model.module.config)
    use_packed_forward(model.module)
    return model


def _changes(spec: ModelSpec) -> dict[str, Any]:
    """Return the options with which the base model is loaded."""
    from transformers import AutoConfig

    assert spec.base is not None
    changes: dict[str, Any] = {}
    if spec.dropout == 0:
        changes |= without_dropout(AutoConfig.from_pretrained(locate_base_model(spec.base), local_files_only=True))
    if spec.quantize:
        changes |= quantized_options(spec.quantize, "cuda")
    return changes


def model_on_meta(spec: ModelSpec) -> Any:
    """Return the model of `spec` on torch's device `meta`. The vocabulary of a new model is what its tokenizer may have."""
    from transformers import AutoConfig

    if spec.config is None:
        assert spec.base is not None
        config = AutoConfig.from_pretrained(locate_base_model(spec.base), local_files_only=True)
    else:
        tokenizer = spec.tokenizer or TokenizerSpec()
        size = tokenizer.size if tokenizer.kind == "bpe" else _CHARACTERS
        config = new_causal_config(spec.config, {"vocab_size": size})
    return use_packed_forward(model_without_weights(AUTO_CLASS, config))
