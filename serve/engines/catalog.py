"""What a replica computes with: the checkpoint as it was trained, or made for the hardware (`serve.engine`).

An engine is built once from a checkpoint into files (`build`), which a replica loads (`load`). Which one is the fastest that
keeps the metric is found out by `serve.engines.choose`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, get_args

import numpy as np

from cluster.errors import SpecError, nearest
from serve.engines.base import Engine
from trainer.inference.predictor import Predictor
from trainer.spec.serve import EngineName

#: What stands for the fastest engine that keeps the metric: in batches, and for a single input.
AUTO, AUTO_LATENCY = "auto", "auto-latency"
#: All there are; the first is the one that every model has.
NAMES = tuple(name for name in get_args(EngineName) if name not in (AUTO, AUTO_LATENCY))


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> str:
    """Write what engine `name` needs of a model into the folder `into`; `sample` are some encoded inputs.

    Returns what is to be known of how it was built, "" as a rule.

    In `scratch` engines of one model share what they are all made from.

    Raises `EngineError` where the model, a library or the hardware does not go with it.
    """
    return _module(name).build(name, predictor, sample, into, scratch) or ""


def load(name: str, predictor: Predictor, built: Path) -> Engine:
    """Return engine `name` from what `build` wrote. Raises `EngineError` as `build` does."""
    engine: Engine = _module(name).load(name, predictor, built)
    return engine


def _module(name: str) -> Any:
    if name not in NAMES:
        raise SpecError(f"serve.engine={name} is not known", nearest(name, NAMES))
    modules = {
        "native": "torch_engines",
        "torch": "torch_engines",
        "torch-packed": "packed",
        "onnx": "onnx.engine",
        "openvino": "onnx.openvino_engine",
    }
    module = modules.get(name) or modules[name.partition("-")[0]]
    return importlib.import_module(f"serve.engines.{module}")
