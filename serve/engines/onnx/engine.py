"""ONNX Runtime engines: the checkpoint as a graph, in fp32 or with int8 matrix products.

BERT and similar encoders get a graph that `encoder_engine` builds. Other models are exported by `torch.onnx.export`.
ONNX Runtime's optimizer then fuses operations (layer norm with the residual, bias with GELU). For int8, `smoothing`
smooths the channels, and then ONNX Runtime's dynamic quantization turns weights into int8, one scale for each output.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import error_summary
from serve.engines.base import EngineError, ForwardEngine
from serve.engines.onnx import encoder_engine
from serve.engines.onnx.session import OnnxEngine, collate_name, create_session, require_library
from serve.engines.onnx.smoothing import smooth_quant
from trainer.inference.predictor import Predictor

if TYPE_CHECKING:
    import torch

GRAPH = "model.onnx"
_BATCH = 32
# Model types that ONNX Runtime's optimizer knows; it does not change the graphs of other models.
_OPTIMIZED_TYPES = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet"}


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> str:
    """Write the graph of `encoder_engine`, or torch's exported graph if `encoder_engine` does not support the model.

    Returns "", or why the exported graph was used.
    """
    try:
        encoder_engine.build(name, predictor, sample, into)
        return ""
    except EngineError as error:
        reason = f"exported by torch: {error}"
    _optimize_graph(predictor, export_model(predictor, sample, scratch), into / GRAPH)
    if name == "onnx-int8":
        smooth_quant(into / GRAPH, graph_inputs(predictor, sample, into / GRAPH))
        quantize_graph(into / GRAPH, seven_bits=not encoder_engine.has_exact_int8_sums(predictor))
    return reason


def load(name: str, predictor: Predictor, built: Path) -> ForwardEngine:
    """Return the engine for the graph in the folder `built`."""
    if (built / encoder_engine.GRAPH).is_file():
        return encoder_engine.load(predictor, built)
    return OnnxEngine(predictor, create_session(built / GRAPH, predictor))


def graph_inputs(predictor: Predictor, sample: list[np.ndarray], graph: Path) -> list[dict[str, np.ndarray]]:
    """Return the sample rows as batches, each with the inputs of the graph by name."""
    import onnx

    names = [tensor.name for tensor in onnx.load(str(graph), load_external_data=False).graph.input]
    inputs = []
    for start in range(0, len(sample), _BATCH):
        batch = predictor.task.collate(predictor.contract, sample[start : start + _BATCH])
        inputs.append({name: batch[collate_name(name)].cpu().numpy() for name in names})
    return inputs


def export_model(predictor: Predictor, sample: list[np.ndarray], scratch: Path) -> Path:
    """Return the path of the exported graph in `scratch`; export it if it is not there.

    The graph takes any number of rows and, for token inputs, any number of tokens.
    """
    path = scratch / GRAPH
    if not path.is_file():
        _export(predictor, sample, path)
    return path


def _export(predictor: Predictor, sample: list[np.ndarray], path: Path) -> None:
    import torch

    require_library("onnxruntime", "onnx", "onnxscript")
    if not isinstance(predictor.model, torch.nn.Module):
        raise EngineError(f"this model of {predictor.task.name} is not a torch model")
    collated = predictor.task.collate(predictor.contract, _export_rows(sample))
    batch = {name: value.to(predictor.device) for name, value in collated.items()}
    dynamic_shapes: dict[str, dict[int, Any]] = {}
    rows, tokens = torch.export.Dim("rows", min=1), torch.export.Dim("tokens", min=2)
    for name, value in batch.items():
        has_tokens = predictor.task.token_input and value.dim() == 2
        dynamic_shapes[name] = {0: rows, **({1: tokens} if has_tokens else {})}
    output = io.StringIO()
    try:
        with (
            _errors_only("torch.onnx"),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _logits_module(predictor.model),
                (),
                str(path),
                kwargs={"batch": batch},
                dynamic_shapes={"batch": dynamic_shapes},
                output_names=["logits"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # tracing a model can raise any error
        raise EngineError(f"the model cannot be exported: {error_summary(error)}") from error


@contextlib.contextmanager
def _errors_only(name: str | None) -> Iterator[None]:
    """Silence the warnings of a logger (None: the root logger) while the block runs."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _export_rows(sample: list[np.ndarray]) -> list[np.ndarray]:
    """Return three rows of different lengths: with one row or one length, the exporter would fix that dimension."""
    by_length = sorted(sample, key=len)
    return [by_length[0], by_length[-1], by_length[len(by_length) // 2]]


def _logits_module(model: Any) -> Any:
    import torch

    class Logits(torch.nn.Module):
        """Wraps a model of the transformers library, to return only its logits."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            logits: torch.Tensor = self.model(**batch).logits
            return logits

    return Logits().eval()


def _optimize_graph(predictor: Predictor, exported: Path, path: Path) -> None:
    """Write the exported graph to `path`, with ONNX Runtime's fusions if its optimizer knows the model."""
    from onnxruntime.transformers import optimizer

    config = getattr(predictor.model, "config", None)
    if getattr(config, "model_type", "") not in _OPTIMIZED_TYPES:
        path.write_bytes(exported.read_bytes())
        return
    heads, width = getattr(config, "num_attention_heads", 0), getattr(config, "hidden_size", 0)
    fused = optimizer.optimize_model(str(exported), model_type="bert", num_heads=heads, hidden_size=width, opt_level=0)
    fused.save_model_to_file(str(path))


def quantize_graph(path: Path, *, seven_bits: bool = False) -> None:
    """Quantize a graph's products to int8. With `seven_bits`, weights use seven bits, so that no int8 sum saturates."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fp32 = path.with_suffix(".fp32")
    path.rename(fp32)
    with _errors_only(None):  # ONNX Runtime recommends a preprocessing step that these graphs do not need
        quantize_dynamic(fp32, path, per_channel=True, weight_type=QuantType.QInt8, reduce_range=seven_bits)
    fp32.unlink()
