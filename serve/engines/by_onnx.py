"""Engines of ONNX Runtime: the checkpoint as a graph, in fp32 or with its multiplications in int8.

The graph comes from `torch.onnx.export`, ONNX Runtime's own optimiser joins what belongs together (attention, layer norm and
the residual, bias and GELU), and its own dynamic quantisation makes int8 of the weights, one scale for each output, after channels were made alike (`smooth`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.engines.base import Engine, EngineError, Padded
from serve.engines.smooth import smooth
from trainer.predictor import Predictor

if TYPE_CHECKING:
    import torch

GRAPH = "model.onnx"
# The exporter puts the argument's name before those of the tensors in it.
_PREFIX = "batch_"
_BATCH = 32
# Heads and width that the optimiser is told; models it knows nothing of are left as they are.
_KNOWN = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet"}


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> None:
    """Write the graph."""
    _optimised(predictor, exported(predictor, sample, scratch), into / GRAPH)
    if name == "onnx-int8":
        smooth(into / GRAPH, feeds(predictor, sample, into / GRAPH))
        int8_of(into / GRAPH)


def load(name: str, predictor: Predictor, built: Path) -> Engine:
    """Return the session of the graph in `built`."""
    ort = _library()
    options = ort.SessionOptions()
    options.intra_op_num_threads = predictor.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that look for work all the time take it from those that speak HTTP.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    if predictor.device == "cuda":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise EngineError("this onnxruntime has no CUDA; install onnxruntime-gpu")
        providers.insert(0, "CUDAExecutionProvider")
    session = ort.InferenceSession(str(built / GRAPH), options, providers=providers)
    return Onnx(predictor, session)


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


def feeds(predictor: Predictor, sample: list[np.ndarray], graph: Path) -> list[dict[str, np.ndarray]]:
    """Return the sample as the graph takes it."""
    import onnx

    names = [found.name for found in onnx.load(str(graph), load_external_data=False).graph.input]
    found = []
    for at in range(0, len(sample), _BATCH):
        batch = predictor.task.collate(predictor.contract, sample[at : at + _BATCH])
        found.append({name: batch[batch_name(name)].cpu().numpy() for name in names})
    return found


def batch_name(of_graph: str) -> str:
    """Return what an input of the graph is called in what the task's `collate` returns."""
    return of_graph.removeprefix(_PREFIX)


def exported(predictor: Predictor, sample: list[np.ndarray], scratch: Path) -> Path:
    """Return the model as a graph whose rows, and tokens where it has any, are free in number; made once in `scratch`."""
    path = scratch / GRAPH
    if not path.is_file():
        _export(predictor, sample, path)
    return path


def _export(predictor: Predictor, sample: list[np.ndarray], path: Path) -> None:
    import torch

    _library(to_export=True)
    if not isinstance(predictor.model, torch.nn.Module):
        raise EngineError(f"{predictor.task.name} of this kind is no torch model")
    collated = predictor.task.collate(predictor.contract, _two_rows(sample))
    batch = {name: value.to(predictor.device) for name, value in collated.items()}
    free: dict[str, dict[int, Any]] = {}
    rows, tokens = torch.export.Dim("rows", min=1), torch.export.Dim("tokens", min=2)
    for name, value in batch.items():
        free[name] = {0: rows, **({1: tokens} if predictor.task.token_input and value.dim() == 2 else {})}
    said, told = io.StringIO(), logging.getLogger("torch.onnx")
    before = told.level
    told.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(predictor.model),
                (),
                str(path),
                kwargs={"batch": batch},
                dynamic_shapes={"batch": free},
                output_names=["logits"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # of whatever the model does that the exporter cannot follow
        raise EngineError(f"the model cannot be exported: {str(error).strip().splitlines()[0][:200]}") from error
    finally:
        told.setLevel(before)


def _two_rows(sample: list[np.ndarray]) -> list[np.ndarray]:
    """Return rows of different lengths: from one row or one length the exporter would take it for fixed."""
    by_length = sorted(sample, key=len)
    return [by_length[0], by_length[-1], by_length[len(by_length) // 2]]


def _Logits(model: Any) -> Any:
    import torch

    class Logits(torch.nn.Module):
        """A model of transformers' kind that returns nothing but its logits."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            found: torch.Tensor = self.model(**batch).logits
            return found

    return Logits().eval()


def _optimised(predictor: Predictor, plain: Path, path: Path) -> None:
    from onnxruntime.transformers import optimizer

    config = getattr(predictor.model, "config", None)
    kind = getattr(config, "model_type", "")
    if kind not in _KNOWN:
        path.write_bytes(plain.read_bytes())
        return
    heads, width = getattr(config, "num_attention_heads", 0), getattr(config, "hidden_size", 0)
    found = optimizer.optimize_model(str(plain), model_type="bert", num_heads=heads, hidden_size=width, opt_level=0)
    found.save_model_to_file(str(path))


def int8_of(path: Path) -> None:
    """Make the multiplications of a graph int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".fp32")
    path.rename(whole)
    quantize_dynamic(whole, path, per_channel=True, weight_type=QuantType.QInt8)
    whole.unlink()


def _library(*, to_export: bool = False) -> Any:
    try:
        import onnxruntime

        if to_export:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
    except ImportError as error:
        raise EngineError(f"{error.name} is not installed; `pip install 'raymill[onnx]'`") from error
    return onnxruntime
