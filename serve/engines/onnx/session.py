"""ONNX Runtime sessions, which compute a graph."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from serve.engines.base import EngineError, PaddedEngine
from trainer.inference.predictor import Predictor

# torch's exporter puts the name of the model's argument, `batch`, in front of each tensor's name.
_PREFIX = "batch_"
#: ONNX Runtime's session options by key. Its threads stop spinning between runs, to leave the CPU to HTTP threads.
SESSION_CONFIG = {"session.force_spinning_stop": "1"}


class OnnxEngine(PaddedEngine):
    """Computes logits with an ONNX Runtime session."""

    owns_weights = True

    def __init__(self, predictor: Predictor, session: Any) -> None:
        super().__init__(predictor)
        self._session = session
        self._inputs = {tensor.name: collate_name(tensor.name) for tensor in session.get_inputs()}

    def _compute(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        logits: np.ndarray = self._session.run(None, {name: batch[key] for name, key in self._inputs.items()})[0]
        return logits


def create_session(graph: Path | bytes, predictor: Predictor) -> Any:
    """Return an ONNX Runtime session on the predictor's device and threads. `graph` is a file's path or its content.

    Raises `EngineError` if onnxruntime or its support for CUDA is missing.
    """
    ort = require_library("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = predictor.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Within a run, operations are microseconds apart, and waking a thread takes longer. So with several threads, they
    # spin between operations.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if predictor.threads > 1 else "0")
    for key, value in SESSION_CONFIG.items():
        options.add_session_config_entry(key, value)
    providers = ["CPUExecutionProvider"]
    if predictor.device == "cuda":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise EngineError("this onnxruntime has no support for CUDA; run `pip install onnxruntime-gpu`")
        providers.insert(0, "CUDAExecutionProvider")
    return ort.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options, providers=providers)


def collate_name(graph_input: str) -> str:
    """Return the name that the task's `collate` gives to a graph's input."""
    return graph_input.removeprefix(_PREFIX)


def require_library(name: str, *others: str) -> Any:
    """Import the libraries `name` and `others`, and return the first. Raises `EngineError` if one is not installed."""
    try:
        for other in others:
            importlib.import_module(other)
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(f"{error.name} is not installed; run `pip install 'raymill[onnx]'`") from error
