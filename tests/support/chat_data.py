"""Small sets of conversations, and specs for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.tiny_causal import CHAT_TEMPLATE

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Look up an order.",
            "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}},
        },
    }
]


def chat(question: str, answer: str, *more: str, system: str | None = None) -> list[dict[str, Any]]:
    """Return a conversation; `more` are further messages, the user's and the assistant's by turns."""
    messages = [{"role": "system", "content": system}] if system else []
    texts = (question, answer, *more)
    return [*messages, *({"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(texts))]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one JSON object per line. Return `path`."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_chats(path: Path, count: int = 60) -> Path:
    """Write conversations of one and of two turns."""
    rows = []
    for number in range(count):
        more = (f"And then {number}?", f"Then press {number}.") if number % 3 == 0 else ()
        rows.append({"messages": chat(f"How do I reset password {number}?", f"Open setting {number}.", *more)})
    return write_jsonl(path, rows)


def chat_spec(base: Path, train: Path, storage: Path, **data: Any) -> dict[str, Any]:
    """Return a spec of the task text-generation as a mapping; `data` are keys of its section `data`."""
    return {
        "name": "chats",
        "task": "text-generation",
        "data": {"train": str(train), "max_length": 200, **data},
        "model": {"base": str(base)},
        "storage": str(storage),
    }


def write_chat_base(folder: Path, template: str = CHAT_TEMPLATE, n_tokens: int = 400) -> Path:
    """Write a folder that looks like a base model to what prepares rows: tokenizer, template, config; no weights.

    It needs no transformers, so it is made in milliseconds.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([template, "How do I reset my password? Open the settings. Thank you!"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "chat_template.jinja").write_text(template)
    config = {"model_type": "llama", "vocab_size": 400, "max_position_embeddings": 512, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder
