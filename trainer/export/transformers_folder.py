"""A registered version of text-generation as a plain folder of transformers, which every other tool reads."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.errors import ModelError
from cluster.files import read_json, write_json
from trainer.chat.rules import CHAT_STEP, ChatRules
from trainer.contract.contract import load_contract
from trainer.models import lora
from trainer.models.base_model import locate_base_model
from trainer.models.pretrained import load_pretrained

#: Files of the tokenizer and its chat template, as the contract has them.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
_CONFIG, _GENERATION_CONFIG = "config.json", "generation_config.json"


def write_transformers_folder(version: Path, into: Path) -> None:
    """Write weights, config, tokenizer and chat template of a version's folder into the empty folder `into`.

    An adapter is merged into its base model. The tokens that end an answer are the contract's, so other tools stop where
    endpoints stop. Raises `ModelError` if the folder holds no language model.
    """
    if lora.holds_adapter(version):
        base = load_pretrained("AutoModelForCausalLM", locate_base_model(lora.base_of_adapter(version))).module
        lora.load_adapter(base, version).save_pretrained(into, safe_serialization=True)  # type: ignore[operator]
    else:
        weights = sorted(version.glob("*.safetensors")) + sorted(version.glob("*.safetensors.index.json"))
        if not weights or not (version / _CONFIG).is_file():
            raise ModelError(f"{version} holds no model of transformers", "export a version of task text-generation")
        for path in [*weights, version / _CONFIG, version / _GENERATION_CONFIG]:
            if path.is_file():
                shutil.copyfile(path, into / path.name)
    for name in _TOKENIZER_FILES:
        if (version / name).is_file():
            shutil.copyfile(version / name, into / name)
    path = into / _GENERATION_CONFIG
    rules = ChatRules.model_validate(load_contract(version).step_params(CHAT_STEP))
    settings = read_json(path) if path.is_file() else {}
    write_json(path, {**settings, "eos_token_id": sorted(rules.stop_ids)} if rules.stop_ids else settings)
