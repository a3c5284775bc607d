"""Engines of ONNX Runtime: the checkpoint as a graph, in fp32 or with its multiplications in int8.

BERT and its relatives have a graph of their own (`encoder_onnx`). All others are exported by `torch.onnx.export`, ONNX Runtime's
own optimiser joins what belongs together (layer norm and the residual, bias and GELU), and its own dynamic quantisation makes
int8 of the weights, one scale for each output, after channels were made alike (`smooth`).
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

from serve.engines.base import Engine, EngineError, one_line
from serve.engines.onnx import encoder_engine
from serve.engines.onnx.session import Onnx, batch_name, library, session
from serve.engines.onnx.smoothing import smooth
from trainer.inference.predictor import Predictor

if TYPE_CHECKING:
    import torch

GRAPH = "model.onnx"
_BATCH = 32
# Heads and width that the optimiser is told; models it knows nothing of are left as they are.
_KNOWN = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet"}


def build(name: str, predictor: Predictor, sample: list[np.ndarray], into: Path, scratch: Path) -> str:
    """Write the graph: one of our own where the model is known, else the exporter's. Returns why it is the latter."""
    try:
        encoder_engine.build(name, predictor, sample, into)
        return ""
    except EngineError as error:
        why = f"the exporter's graph: {error}"
    _optimised(predictor, exported(predictor, sample, scratch), into / GRAPH)
    if name == "onnx-int8":
        smooth(into / GRAPH, feeds(predictor, sample, into / GRAPH))
        int8_of(into / GRAPH, cut_off=not encoder_engine.multiplies_whole(predictor))
    return why


def load(name: str, predictor: Predictor, built: Path) -> Engine:
    """Return the session of the graph in `built`."""
    if (built / encoder_engine.GRAPH).is_file():
        return encoder_engine.load(predictor, built)
    return Onnx(predictor, session(built / GRAPH, predictor))


def feeds(predictor: Predictor, sample: list[np.ndarray], graph: Path) -> list[dict[str, np.ndarray]]:
    """Return the sample as the graph takes it."""
    import onnx

    names = [found.name for found in onnx.load(str(graph), load_external_data=False).graph.input]
    found = []
    for at in range(0, len(sample), _BATCH):
        batch = predictor.task.collate(predictor.contract, sample[at : at + _BATCH])
        found.append({name: batch[batch_name(name)].cpu().numpy() for name in names})
    return found


def exported(predictor: Predictor, sample: list[np.ndarray], scratch: Path) -> Path:
    """Return the model as a graph whose rows, and tokens where it has any, are free in number; made once in `scratch`."""
    path = scratch / GRAPH
    if not path.is_file():
        _export(predictor, sample, path)
    return path


def _export(predictor: Predictor, sample: list[np.ndarray], path: Path) -> None:
    import torch

    library("onnxruntime", "onnx", "onnxscript")
    if not isinstance(predictor.model, torch.nn.Module):
        raise EngineError(f"{predictor.task.name} of this kind is no torch model")
    collated = predictor.task.collate(predictor.contract, _two_rows(sample))
    batch = {name: value.to(predictor.device) for name, value in collated.items()}
    free: dict[str, dict[int, Any]] = {}
    rows, tokens = torch.export.Dim("rows", min=1), torch.export.Dim("tokens", min=2)
    for name, value in batch.items():
        free[name] = {0: rows, **({1: tokens} if predictor.task.token_input and value.dim() == 2 else {})}
    said = io.StringIO()
    try:
        with (
            _quiet("torch.onnx"),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
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
        raise EngineError(f"the model cannot be exported: {one_line(error)}") from error


@contextlib.contextmanager
def _quiet(name: str | None) -> Iterator[None]:
    """Keep a logger, None: the root, from warnings in the block."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


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


def int8_of(path: Path, *, cut_off: bool = False) -> None:
    """Make the multiplications of a graph int8; with `cut_off` the weights get seven bits, so that no sum is cut off."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".fp32")
    path.rename(whole)
    with _quiet(None):  # it wants a preparation that BERT's shapes do not need
        quantize_dynamic(whole, path, per_channel=True, weight_type=QuantType.QInt8, reduce_range=cut_off)
    whole.unlink()
