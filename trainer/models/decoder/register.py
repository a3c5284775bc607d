"""Makes raymill's own decoder known to transformers."""

from __future__ import annotations


def register_decoder() -> None:
    """Let transformers' Auto classes know `model_type: raymill_decoder`. May be called any number of times.

    Call it before a config or a model is loaded that may be the decoder's.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from trainer.models.decoder.config import MODEL_TYPE, RaymillDecoderConfig
    from trainer.models.decoder.model import RaymillDecoder, RaymillDecoderForCausalLM

    AutoConfig.register(MODEL_TYPE, RaymillDecoderConfig, exist_ok=True)
    AutoModel.register(RaymillDecoderConfig, RaymillDecoder, exist_ok=True)
    AutoModelForCausalLM.register(RaymillDecoderConfig, RaymillDecoderForCausalLM, exist_ok=True)
