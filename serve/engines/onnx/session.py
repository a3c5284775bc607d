"""ONNX Runtime: a graph, ready to compute."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from serve.engines.base import EngineError, Padded
from trainer.inference.predictor import Predictor

# The exporter puts the argument's name before those of the tensors in it.
_PREFIX = "batch_"


class Onnx(Padded):
    """A session of ONNX Runtime."""

    keeps_its_own_weights = True

    def __init__(self, predictor: Predictor, session: Any) -> None:
        super().__init__(predictor)
        self._session = session
        self._inputs = {found.name: batch_name(found.name) for found in session.get_inputs()}

    def _compute(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        found: np.ndarray = self._session.run(None, {name: batch[key] for name, key in self._inputs.items()})[0]
        return found


def session(graph: Path | bytes, predictor: Predictor) -> Any:
    """Return the session of a graph, a file or what is in one, with the predictor's threads and device."""
    ort = library("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = predictor.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that look for work all the time take it from those that speak HTTP; within a run there are only microseconds
    # between one operation and the next, and waking a thread takes longer.
    several = predictor.threads > 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if several else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    if predictor.device == "cuda":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise EngineError("this onnxruntime has no CUDA; install onnxruntime-gpu")
        providers.insert(0, "CUDAExecutionProvider")
    return ort.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options, providers=providers)


def batch_name(of_graph: str) -> str:
    """Return what an input of the graph is called in what the task's `collate` returns."""
    return of_graph.removeprefix(_PREFIX)


def library(name: str, *others: str) -> Any:
    """Return a library, the others imported too. Raises `EngineError` where one is not installed."""
    try:
        for other in others:
            importlib.import_module(other)
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(f"{error.name} is not installed; `pip install 'raymill[onnx]'`") from error
