"""Sessions of ONNX Runtime: a graph, ready to compute."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from serve.engines.base import EngineError, PaddedEngine
from trainer.inference.predictor import Predictor

# The exporter prefixes the names of tensors with the name of the argument that holds them.
_PREFIX = "batch_"
#: ONNX Runtime's session options by key. Spinning threads would take time from those that speak HTTP, so they stop
#: between runs.
SESSION_CONFIG = {"session.force_spinning_stop": "1"}


class OnnxEngine(PaddedEngine):
    """A session of ONNX Runtime."""

    owns_weights = True

    def __init__(self, predictor: Predictor, session: Any) -> None:
        super().__init__(predictor)
        self._session = session
        self._inputs = {tensor.name: collate_name(tensor.name) for tensor in session.get_inputs()}

    def _compute(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        logits: np.ndarray = self._session.run(None, {name: batch[key] for name, key in self._inputs.items()})[0]
        return logits


def create_session(graph: Path | bytes, predictor: Predictor) -> Any:
    """Return a session for a graph, a file or its content, with the predictor's threads and device."""
    ort = require_library("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = predictor.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Within a run, operations are microseconds apart, and waking a thread takes longer: several threads spin there.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if predictor.threads > 1 else "0")
    for key, value in SESSION_CONFIG.items():
        options.add_session_config_entry(key, value)
    providers = ["CPUExecutionProvider"]
    if predictor.device == "cuda":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise EngineError("this onnxruntime has no CUDA; install onnxruntime-gpu")
        providers.insert(0, "CUDAExecutionProvider")
    return ort.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options, providers=providers)


def collate_name(graph_input: str) -> str:
    """Return the name of a graph's input in the output of the task's `collate`."""
    return graph_input.removeprefix(_PREFIX)


def require_library(name: str, *others: str) -> Any:
    """Return a library after importing it and the others. Raises `EngineError` if one is not installed."""
    try:
        for other in others:
            importlib.import_module(other)
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(f"{error.name} is not installed; `pip install 'raymill[onnx]'`") from error
