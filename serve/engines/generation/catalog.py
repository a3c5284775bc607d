"""The engines that continue texts. The names are those of `serve.engine` in trainer/spec/serve.py.

`build_engine` writes an engine's files once; a replica loads them with `load_engine`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from cluster.errors import ModelError, SpecError, suggest
from cluster.files import read_json
from serve.engines.base import EngineError
from serve.engines.generation.fallback import FallbackEngine
from trainer.export.gguf_vocabulary import end_ids
from trainer.spec.serve import GenerationEngineName

if TYPE_CHECKING:
    from trainer.export.gguf_file import Precision
    from trainer.generation.engine import Engine
    from trainer.generation.torch_engine import EngineOptions, TorchEngine

#: The model's own engine, which every model has.
NATIVE = "native"
GENERATION_ENGINES: tuple[str, ...] = get_args(GenerationEngineName)
_GGUF_FILE = "model.gguf"
# Files beside an engine's own that say what it needs to know of the model.
_FACTS = ("config.json", "generation_config.json", "tokenizer.json")


#: Makes the model's own engine; the argument says whether its weights are int8.
LoadOwn = Callable[[bool], "TorchEngine"]


class LoadSettings(NamedTuple):
    """What an engine is loaded with."""

    options: EngineOptions
    device: str = "cpu"
    threads: int = 1
    has_fallback: bool = True
    """Whether the model's own engine does what this one does not do exactly. If not, such requests are refused."""


def candidate_names(device: str) -> list[str]:
    """Return the engines to compare on a device, the model's own first."""
    return [NATIVE, "vllm"] if device == "cuda" else [name for name in GENERATION_ENGINES if name != "vllm"]


def build_engine(name: str, folder: Path, into: Path) -> None:
    """Write the files of engine `name` into the folder `into`, for the model in `folder`, a transformers folder.

    Raises `EngineError` if the model or a library does not support the engine.
    """
    kind, _, precision = _check_name(name).partition("-")
    if kind == NATIVE:
        return
    for file in _FACTS:
        if (folder / file).is_file():
            shutil.copyfile(folder / file, into / file)
    if kind == "vllm":
        for path in folder.glob("*.safetensors*"):
            shutil.copyfile(path, into / path.name)
        return
    from trainer.export.gguf_file import write_gguf

    path = into / _GGUF_FILE
    try:
        write_gguf(folder, path, cast("Precision", precision), has_plain_vocabulary=True)
    except ModelError as error:
        raise EngineError(error.problem) from error
    if kind == "openvino":
        from serve.engines.generation.openvino_genai import convert_gguf

        convert_gguf(path, into)


def load_engine(name: str, built: Path, settings: LoadSettings, load_own: LoadOwn) -> Engine:
    """Return engine `name`, from the files that `build_engine` wrote into the folder `built`.

    `load_own` makes the model's own engine. Raises `EngineError` if the model, a library or the hardware does not support
    the engine.
    """
    kind = _check_name(name).partition("-")[0]
    if kind == NATIVE:
        is_int8 = name != NATIVE
        if is_int8:
            _check_device(settings, "cpu")
        return load_own(is_int8)
    fast, exact = _LOADERS[kind](built, settings)
    if not settings.has_fallback:
        return fast
    return FallbackEngine(fast, exact, lambda: load_own(False), max_length=_own_length(built, settings))


def _load_llama(built: Path, settings: LoadSettings) -> tuple[Engine, frozenset[str]]:
    from serve.engines.generation.llama_cpp import EXACT, LlamaCppEngine

    _check_device(settings, "cpu")
    return LlamaCppEngine(built / _GGUF_FILE, **_model_facts(built), **_sizes(settings)), EXACT


def _load_openvino(built: Path, settings: LoadSettings) -> tuple[Engine, frozenset[str]]:
    from serve.engines.generation.openvino_genai import EXACT, OpenVinoGenAiEngine

    _check_device(settings, "cpu")
    return OpenVinoGenAiEngine(built, **_model_facts(built), **_sizes(settings)), EXACT


def _load_vllm(built: Path, settings: LoadSettings) -> tuple[Engine, frozenset[str]]:
    from serve.engines.generation.vllm_engine import EXACT, VllmEngine

    _check_device(settings, "cuda")
    return VllmEngine(built, **_model_facts(built), options=settings.options), EXACT


_LOADERS: dict[str, Callable[[Path, LoadSettings], tuple[Any, frozenset[str]]]] = {
    "llama": _load_llama,
    "openvino": _load_openvino,
    "vllm": _load_vllm,
}


def _model_facts(built: Path) -> dict[str, Any]:
    """Return what every engine of another library is told of the model."""
    from tokenizers import Tokenizer

    return {
        "tokenizer": Tokenizer.from_file(str(built / "tokenizer.json")),
        "eos_ids": end_ids(built),
        "model_length": _max_positions(built),
    }


def _sizes(settings: LoadSettings) -> dict[str, Any]:
    return {"options": settings.options, "threads": settings.threads}


def _max_positions(built: Path) -> int:
    return int(read_json(built / "config.json")["max_position_embeddings"])


def _own_length(built: Path, settings: LoadSettings) -> int:
    """Return the most tokens that the model's own engine can hold."""
    longest = min(_max_positions(built), settings.options.cache_tokens)
    return min(longest, settings.options.max_length or longest)


def _check_device(settings: LoadSettings, device: str) -> None:
    if settings.device != device:
        raise EngineError("it runs on CPUs only" if device == "cpu" else "it runs on GPUs only")


def _check_name(name: str) -> str:
    if name not in GENERATION_ENGINES:
        raise SpecError(f"serve.engine={name} is no engine for this task", suggest(name, GENERATION_ENGINES))
    return name
