"""Engines of OpenVINO: the graph of `by_onnx` in bf16, or with weights and multiplications in int8."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from serve.engines.base import Engine, EngineError, Padded
from serve.engines.onnx.engine import GRAPH, exported, int8_of
from serve.engines.onnx.session import batch_name
from trainer.inference.predictor import Predictor


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> None:
    """Write the graph, unoptimised: OpenVINO joins operations by itself."""
    _library()
    shutil.copyfile(exported(predictor, sample, scratch), into / GRAPH)
    if name == "openvino-int8":
        int8_of(into / GRAPH)


def load(name: str, predictor: Predictor, built: Path) -> Engine:
    """Return the compiled graph in `built`."""
    if predictor.device != "cpu":
        raise EngineError("it is for CPUs")
    openvino = _library()
    how = {
        "INFERENCE_NUM_THREADS": predictor.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if name == "openvino-bf16" else "f32",
    }
    core = openvino.Core()
    return OpenVino(predictor, core.compile_model(core.read_model(str(built / GRAPH)), "CPU", how))


class OpenVino(Padded):
    """A compiled model of OpenVINO."""

    keeps_its_own_weights = True

    def __init__(self, predictor: Predictor, compiled: Any) -> None:
        super().__init__(predictor)
        self._request = compiled.create_infer_request()
        names = [next(iter(found.get_names())) for found in compiled.inputs]
        self._inputs = {name: batch_name(name) for name in names}

    def _compute(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        found: np.ndarray = self._request.infer({name: batch[key] for name, key in self._inputs.items()})[0]
        return found


def _library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError("openvino is not installed; `pip install 'raymill[openvino]'`") from error
    return openvino
