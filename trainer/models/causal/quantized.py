"""Base models with weights of 4 bits, for QLoRA on GPUs (bitsandbytes)."""

from __future__ import annotations

import importlib.util
from typing import Any

from cluster.errors import ModelError


def quantized_options(kind: str, device: str) -> dict[str, Any]:
    """Return the options with which `from_pretrained` loads a base model in 4 bits onto `device`.

    Raises `ModelError` without a GPU or without bitsandbytes.
    """
    import torch

    if not torch.cuda.is_available():
        raise ModelError(
            f"model.quantize={kind} needs a GPU, and this worker has none",
            "remove `model.quantize`; LoRA on a CPU trains beside fp32 weights",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"model.quantize={kind} needs bitsandbytes", "pip install 'raymill[8bit]'")
    from transformers import BitsAndBytesConfig

    return {
        "device_map": {"": device},
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=kind,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16,
        ),
    }
