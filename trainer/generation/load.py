"""A torch engine from a folder with a model of transformers, or from a model in memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError
from trainer.generation.forward import Forward, TransformersForward
from trainer.generation.fused import FusedForward, is_fusible
from trainer.generation.int8 import quantize_model
from trainer.generation.torch_engine import EngineOptions, TorchEngine
from trainer.models.decoder.register import register_decoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_engine(
    folder: Path, options: EngineOptions | None = None, *, int8: bool = False, device: str = "cpu"
) -> TorchEngine:
    """Return an engine over the model, `tokenizer.json` and end-of-turn tokens of `folder`.

    Raises `ModelError` for models that the engine cannot run.
    """
    from transformers import AutoModelForCausalLM

    register_decoder()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    model = model.to(device)
    return make_engine(model, read_tokenizer(folder), options=options, int8=int8)


def make_engine(
    model: Any,
    tokenizer: Tokenizer | None = None,
    *,
    eos_ids: Collection[int] | None = None,
    options: EngineOptions | None = None,
    int8: bool = False,
) -> TorchEngine:
    """Return an engine over a causal model of transformers; `eos_ids` are the tokens that end an answer."""
    eos_ids = model_eos_ids(model) if eos_ids is None else eos_ids
    return TorchEngine(make_forward(model, int8=int8), tokenizer, eos_ids, options)


def make_forward(model: Any, *, int8: bool = False) -> Forward:
    """Return the fastest forward for `model`; with `int8` its linear layers have int8 weights.

    The model is for the forward alone afterwards: unless it is fused, its attention and its linear layers are replaced.
    """
    if is_fusible(model):
        return FusedForward(model, int8=int8)
    if int8:
        quantize_model(model)
    return TransformersForward(model)


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
