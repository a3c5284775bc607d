"""examples/llm_gpu: the plan of each spec on GPUs that are not here, with the sums that its README shows."""

from __future__ import annotations

import re

import pytest

import raymill
from cluster.text import format_bytes
from support.model_headers import write_causal_headers
from support.pages import ROOT

FOLDER = ROOT / "examples" / "llm_gpu"
LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "tie_word_embeddings": False,
}
QWEN3_1B7 = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("name", "config"),
    [("lora_one_gpu", LLAMA_8B), ("qlora_one_gpu", LLAMA_8B), ("full_eight_gpus", QWEN3_1B7)],
)
def test_the_readme_shows_the_sum_of_the_plan(tmp_path, name, config):
    base = write_causal_headers(tmp_path / "base", **config)
    plan = raymill.plan(
        FOLDER / f"{name}.yaml",
        overrides=[
            f"model.base={base}",
            f"data.train={ROOT / 'examples' / 'chat_lora' / 'chats.jsonl'}",
            f"storage={tmp_path / 'storage'}",
        ],
        nodes=FOLDER / "nodes" / "h100.yaml",
    )
    on_gpu = plan["memory"]["train on a GPU"]
    assert not on_gpu["unknown"]
    row = re.search(rf"\[{name}\.yaml\]\([^)]*\) \|.*\| ([\d.]+ GB) \|$", (FOLDER / "README.md").read_text(), re.M)
    assert row and row[1] == format_bytes(on_gpu["bytes"])
