"""A tokenizer of the `tokenizers` library as the vocabulary of a GGUF file.

llama.cpp has each way of splitting text built in, by name. So a tokenizer is written only if its split is one of those
known here; all others are refused, because llama.cpp would give other tokens than the model was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import ModelError
from cluster.files import read_json

# Types of tokens in GGUF.
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: Pattern of a `Split` -> llama.cpp's name for it.
_PATTERNS = {_LLAMA3_PATTERN: "llama-bpe", _LLAMA3_PATTERN.replace("{1,3}", ""): "qwen2"}


class Vocabulary(NamedTuple):
    """The tokenizer's part of a GGUF file."""

    model: str
    """llama.cpp's name of the algorithm."""
    split: str
    """llama.cpp's name of how text is split before."""
    tokens: list[str]
    types: list[int]
    merges: list[str]
    adds_bos: bool
    adds_eos: bool
    special_ids: dict[str, int]
    """`bos`, `eos`, `unknown`, `padding` -> id, where the model has one."""
    chat_template: str | None = None


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Return the vocabulary of `folder`, a transformers folder, with `size` tokens.

    Raises `ModelError` if llama.cpp has no tokenizer that gives the same tokens.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no tokenizer.json", "save the tokenizer with `save_pretrained`")
    tokenizer = read_json(path)
    model = tokenizer["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback") or model.get("continuing_subword_prefix"):
        raise _refusal(
            f"its algorithm is {model.get('type')}{' with byte fallback' if model.get('byte_fallback') else ''}"
        )
    if tokenizer.get("normalizer") not in (None, {"type": "NFC"}):
        raise _refusal(f"its normalizer is {tokenizer['normalizer'].get('type')}")
    split = _split_name(tokenizer.get("pre_tokenizer"))
    tokens, types = _pieces(tokenizer, size)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    adds_bos, adds_eos = _added_ends(path)
    return Vocabulary("gpt2", split, tokens, types, merges, adds_bos, adds_eos, special_ids(folder), _template(folder))


def plain_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Return a vocabulary in which the text of each token is its id in eight characters, for engines that get ids.

    So every tokenizer works, a token is never half of a character, and a grammar can name single tokens.
    """
    ids = special_ids(folder)
    # Only the end of a turn is a control token, which has no text and ends an answer.
    types = [_CONTROL if token == ids.get("eos") else _NORMAL for token in range(size)]
    return Vocabulary("gpt2", "gpt-2", [plain_piece(token) for token in range(size)], types, [], False, False, ids)


def plain_piece(token_id: int) -> str:
    """Return the text of a token in a `plain_vocabulary`; all have the same length."""
    return f"<{token_id:06d}>"


def special_ids(folder: Path) -> dict[str, int]:
    """Return the special tokens of a transformers folder: `bos`, `eos`, `unknown`, `padding` -> id, where it has one."""
    keys = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    listed = {name: _token_ids(folder, key) for name, key in keys.items()}
    return {name: ids[0] for name, ids in listed.items() if ids}


def end_ids(folder: Path) -> tuple[int, ...]:
    """Return all tokens that end an answer of the model in a transformers folder."""
    return tuple(_token_ids(folder, "eos"))


def _token_ids(folder: Path, key: str) -> list[int]:
    path = folder / "generation_config.json"
    configs = [*([read_json(path)] if path.is_file() else []), read_json(folder / "config.json")]
    values = [config[f"{key}_token_id"] for config in configs if config.get(f"{key}_token_id") is not None]
    if not values:
        return []
    return list(values[0]) if isinstance(values[0], list) else [int(values[0])]


def _split_name(pre_tokenizer: dict[str, Any] | None) -> str:
    """Return llama.cpp's name of a pre-tokenizer."""
    parts = _flatten(pre_tokenizer)
    if not parts or parts[-1]["type"] != "ByteLevel" or parts[-1].get("add_prefix_space"):
        raise _refusal("its tokens are not bytes, or it adds a space before the text")
    before, own_pattern = parts[:-1], parts[-1].get("use_regex", True)
    if not before and own_pattern:
        return "gpt-2"
    if own_pattern and [(part["type"], part.get("individual_digits")) for part in before] == [("Digits", True)]:
        return "smollm"
    if len(before) == 1 and before[0]["type"] == "Split" and not own_pattern:
        name = _PATTERNS.get(before[0]["pattern"].get("Regex", ""))
        if name and before[0]["behavior"] == "Isolated" and not before[0].get("invert"):
            return name
    raise _refusal("llama.cpp does not split text in the same way")


def _flatten(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    parts: list[dict[str, Any]] = (
        pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    )
    return parts


def _pieces(tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of each of `size` tokens."""
    tokens = [f"[PAD{token}]" for token in range(size)]
    types = [_UNUSED] * size
    kinds = {text: (token, _NORMAL) for text, token in tokenizer["model"]["vocab"].items()}
    kinds |= {
        item["content"]: (item["id"], _CONTROL if item["special"] else _USER_DEFINED)
        for item in tokenizer["added_tokens"]
    }
    for text, (token, kind) in kinds.items():
        if token >= size:
            raise ModelError(
                f"the tokenizer has token {token} ('{text}'), but the model has only {size:,} tokens",
                "check that the tokenizer belongs to the model",
            )
        tokens[token], types[token] = text, kind
    return tokens, types


def _added_ends(path: Path) -> tuple[bool, bool]:
    """Return whether the tokenizer puts a token before each text, and one after it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a").ids
    return full[: len(plain)] != plain, full[-len(plain) :] != plain


def _template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    config_path = folder / "tokenizer_config.json"
    template = read_json(config_path).get("chat_template") if config_path.is_file() else None
    return template if isinstance(template, str) else None


def _refusal(reason: str) -> ModelError:
    return ModelError(
        f"this tokenizer cannot be written as GGUF: {reason}",
        "export the model with `--to hf`, which keeps its tokenizer",
    )
