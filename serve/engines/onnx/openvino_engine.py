"""OpenVINO engines: the exported ONNX graph in bf16, or with int8 weights and matrix products."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from serve.engines.base import EngineError, ForwardEngine, PaddedEngine
from serve.engines.onnx.engine import GRAPH, export_model, quantize_graph
from serve.engines.onnx.session import collate_name
from trainer.inference.predictor import Predictor


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> None:
    """Write the exported graph. It has no fusions of ONNX Runtime, because OpenVINO fuses operations itself."""
    _import_openvino()
    shutil.copyfile(export_model(predictor, sample, scratch), into / GRAPH)
    if name == "openvino-int8":
        quantize_graph(into / GRAPH)


def load(name: str, predictor: Predictor, built: Path) -> ForwardEngine:
    """Return the engine for the graph in the folder `built`, compiled for this CPU."""
    if predictor.device != "cpu":
        raise EngineError("it runs on CPUs only")
    openvino = _import_openvino()
    options = {
        "INFERENCE_NUM_THREADS": predictor.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if name == "openvino-bf16" else "f32",
    }
    core = openvino.Core()
    return OpenVinoEngine(predictor, core.compile_model(core.read_model(str(built / GRAPH)), "CPU", options))


class OpenVinoEngine(PaddedEngine):
    """A model compiled by OpenVINO."""

    owns_weights = True

    def __init__(self, predictor: Predictor, compiled: Any) -> None:
        super().__init__(predictor)
        self._request = compiled.create_infer_request()
        names = [next(iter(tensor.get_names())) for tensor in compiled.inputs]
        self._inputs = {name: collate_name(name) for name in names}

    def _compute(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        logits: np.ndarray = self._request.infer({name: batch[key] for name, key in self._inputs.items()})[0]
        return logits


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError("openvino is not installed; run `pip install 'raymill[openvino]'`") from error
    return openvino
