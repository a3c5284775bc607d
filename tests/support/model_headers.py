"""Folders of base models that hold config and headers only: enough to plan memory, whatever the model's size."""

import json
import struct
from pathlib import Path
from typing import Any

from support.tiny_causal import write_tiny_tokenizer

#: Sizes of BERT's usual models: layers, width, heads, intermediate width.
BERT_BASE = (12, 768, 12, 3072)
BERT_LARGE = (24, 1024, 16, 4096)
MINILM = (6, 384, 12, 1536)


def write_bert_headers(folder: Path, sizes: tuple[int, int, int, int] = BERT_BASE, vocabulary: int = 30_522) -> Path:
    """Write config.json and the header of model.safetensors of a BERT; return the folder."""
    layers, width, heads, intermediate = sizes
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "bert",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "embeddings.word_embeddings.weight": [vocabulary, width],
        "embeddings.position_embeddings.weight": [512, width],
        "embeddings.token_type_embeddings.weight": [2, width],
        "embeddings.LayerNorm.weight": [width],
        "embeddings.LayerNorm.bias": [width],
    }
    for layer in range(layers):
        linears = {
            "attention.self.query": [width, width],
            "attention.self.key": [width, width],
            "attention.self.value": [width, width],
            "attention.output.dense": [width, width],
            "intermediate.dense": [intermediate, width],
            "output.dense": [width, intermediate],
        }
        for name, shape in linears.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = [width]
            shapes[f"encoder.layer.{layer}.{name}.bias"] = [width]
    _write_header(folder, shapes, "F32")
    return folder


def write_causal_headers(folder: Path, **config: Any) -> Path:
    """Write a causal language model with these fields of its config, in bf16, with a tiny tokenizer; return the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True)
    write_tiny_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 2, **config}))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    _write_header(folder, {name: list(value.shape) for name, value in model.state_dict().items()}, "BF16")
    return folder


def _write_header(folder: Path, shapes: dict[str, list[int]], dtype: str) -> None:
    header = {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    content = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content)
