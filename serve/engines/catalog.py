"""The engines that compute a replica's forward pass. The names are those of `serve.engine` in trainer/spec/serve.py.

`build_engine` builds an engine once, from a checkpoint into files; a replica loads these with `load_engine`.
`serve.engines.choose` finds the fastest engine that keeps the metric.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from cluster.errors import SpecError, suggest
from serve.engines.base import ForwardEngine
from trainer.spec.serve import EngineName

if TYPE_CHECKING:
    from trainer.inference.predictor import Predictor

#: Values of `serve.engine` for the fastest engine that keeps the metric: fastest in batches, or for a single input.
AUTO, AUTO_LATENCY = "auto", "auto-latency"
#: The engines themselves, without `auto` and `auto-latency`.
ENGINE_NAMES = tuple(name for name in get_args(EngineName) if name not in (AUTO, AUTO_LATENCY))
#: The model's own forward pass, as in training. Every model has it.
NATIVE = "native"

_MODULES = {
    NATIVE: "torch_engines",
    "torch": "torch_engines",
    "torch-packed": "packed",
    "onnx": "onnx.engine",
    "openvino": "onnx.openvino_engine",
}


def build_engine(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> str:
    """Write the files of engine `name` for a model into the folder `into`; `sample` holds some encoded inputs.

    Returns a note on how the engine was built, usually "". `scratch` is a folder for intermediate files that engines of
    the same model share. Raises `EngineError` if the model, a library or the hardware does not support the engine.
    """
    return _module(name).build(name, predictor, sample, into, scratch) or ""


def load_engine(name: str, predictor: Predictor, built: Path) -> ForwardEngine:
    """Return engine `name`, loaded from the files that `build_engine` wrote into the folder `built`.

    Raises `EngineError` if the model, a library or the hardware does not support the engine.
    """
    engine: ForwardEngine = _module(name).load(name, predictor, built)
    return engine


def _module(name: str) -> Any:
    if name not in ENGINE_NAMES:
        raise SpecError(f"serve.engine={name} is not a known engine", suggest(name, ENGINE_NAMES))
    module = _MODULES.get(name) or _MODULES[name.partition("-")[0]]
    return importlib.import_module(f"serve.engines.{module}")
