"""The engines that continue texts. The names are those of `serve.engine` in trainer/spec/serve.py.

`build_engine` writes an engine's files once; a replica loads them with `load_engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from cluster.errors import ModelError, SpecError, suggest
from cluster.files import read_json
from serve.engines.base import EngineError
from serve.engines.generation.fallback import FallbackEngine
from serve.engines.torch_engines import set_threads
from trainer.export.gguf_vocabulary import end_ids
from trainer.spec.serve import GenerationEngineName

if TYPE_CHECKING:
    from trainer.export.gguf_file import Precision
    from trainer.generation.engine import Engine
    from trainer.generation.torch_engine import EngineOptions

#: The model's own engine, which every model has.
NATIVE = "native"
GENERATION_ENGINES: tuple[str, ...] = get_args(GenerationEngineName)
_GGUF_FILE = "model.gguf"


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
    if kind not in ("llama", "openvino"):
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


def load_engine(name: str, folder: Path, built: Path, settings: LoadSettings) -> Engine:
    """Return engine `name` of the model in `folder`, from the files that `build_engine` wrote into `built`.

    Raises `EngineError` if the model, a library or the hardware does not support the engine.
    """
    kind = _check_name(name).partition("-")[0]
    if kind == NATIVE:
        return _load_own(folder, settings, int8=name == "native-int8")
    fast, exact = _LOADERS[kind](folder, built, settings)
    if not settings.has_fallback:
        return fast
    return FallbackEngine(fast, exact, lambda: _load_own(folder, settings), max_length=_model_length(folder, settings))


def _load_own(folder: Path, settings: LoadSettings, *, int8: bool = False) -> Engine:
    from trainer.generation import load

    if int8:
        _check_device(settings, "cpu")
    set_threads(settings.threads)
    return load.load_engine(folder, settings.options, int8=int8, device=settings.device)


def _load_llama(folder: Path, built: Path, settings: LoadSettings) -> tuple[Engine, frozenset[str]]:
    from serve.engines.generation.llama_cpp import EXACT, LlamaCppEngine

    _check_device(settings, "cpu")
    return LlamaCppEngine(built / _GGUF_FILE, **_model_facts(folder), **_sizes(settings)), EXACT


def _load_openvino(folder: Path, built: Path, settings: LoadSettings) -> tuple[Engine, frozenset[str]]:
    from serve.engines.generation.openvino_genai import EXACT, OpenVinoGenAiEngine

    _check_device(settings, "cpu")
    return OpenVinoGenAiEngine(built, **_model_facts(folder), **_sizes(settings)), EXACT


def _load_vllm(folder: Path, built: Path, settings: LoadSettings) -> tuple[Engine, frozenset[str]]:
    from serve.engines.generation.vllm_engine import EXACT, VllmEngine

    _check_device(settings, "cuda")
    return VllmEngine(folder, **_model_facts(folder), options=settings.options), EXACT


_LOADERS: dict[str, Callable[[Path, Path, LoadSettings], tuple[Any, frozenset[str]]]] = {
    "llama": _load_llama,
    "openvino": _load_openvino,
    "vllm": _load_vllm,
}


def _model_facts(folder: Path) -> dict[str, Any]:
    """Return what every engine of another library is told of the model."""
    from trainer.generation.load import read_tokenizer

    return {"tokenizer": read_tokenizer(folder), "eos_ids": end_ids(folder), "model_length": _max_positions(folder)}


def _sizes(settings: LoadSettings) -> dict[str, Any]:
    return {"options": settings.options, "threads": settings.threads}


def _max_positions(folder: Path) -> int:
    return int(read_json(folder / "config.json")["max_position_embeddings"])


def _model_length(folder: Path, settings: LoadSettings) -> int:
    """Return the most tokens that the model's own engine can hold."""
    longest = min(_max_positions(folder), settings.options.cache_tokens)
    return min(longest, settings.options.max_length or longest)


def _check_device(settings: LoadSettings, device: str) -> None:
    if settings.device != device:
        raise EngineError("it runs on CPUs only" if device == "cpu" else "it runs on GPUs only")


def _check_name(name: str) -> str:
    if name not in GENERATION_ENGINES:
        raise SpecError(f"serve.engine={name} is no engine for this task", suggest(name, GENERATION_ENGINES))
    return name
