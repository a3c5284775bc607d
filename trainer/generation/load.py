"""A torch engine from a folder with a model of transformers, or from a model in memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError
from trainer.generation.torch_engine import EngineOptions, TorchEngine

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_engine(folder: Path, options: EngineOptions | None = None, device: str = "cpu") -> TorchEngine:
    """Return an engine over the model, `tokenizer.json` and end-of-turn tokens of `folder`.

    Raises `ModelError` for models that the engine cannot run.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    model = model.to(device)
    return make_engine(model, read_tokenizer(folder), eos_ids=model_eos_ids(model), options=options)


def make_engine(
    model: Any,
    tokenizer: Tokenizer | None = None,
    *,
    eos_ids: Collection[int] | None = None,
    options: EngineOptions | None = None,
) -> TorchEngine:
    """Return an engine over a causal model of transformers; `eos_ids` are the tokens that end an answer."""
    from trainer.generation.forward import TransformersForward

    eos_ids = model_eos_ids(model) if eos_ids is None else eos_ids
    return TorchEngine(TransformersForward(model), tokenizer, eos_ids, options)


def model_eos_ids(model: Any) -> frozenset[int]:
    """Return the tokens that end an answer, as the model's generation config names them, or else its config."""
    for config in (getattr(model, "generation_config", None), model.config.get_text_config()):
        eos = getattr(config, "eos_token_id", None)
        if eos is not None:
            return frozenset([eos] if isinstance(eos, int) else eos)
    return frozenset()


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of `folder/tokenizer.json`. Raises `ModelError` if there is none."""
    from tokenizers import Tokenizer

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{path} does not exist", "save the model's fast tokenizer beside it")
    return Tokenizer.from_file(str(path))
