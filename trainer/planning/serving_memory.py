"""The memory of one replica of an endpoint: libraries, the model, its engine's copy, and one batch."""

from __future__ import annotations

from trainer.planning.encoder_shape import WeightCounts
from trainer.planning.table_memory import TABLE_LIBRARIES
from trainer.planning.term import Estimate, Term, times, without_empty
from trainer.planning.training_memory import LIBRARIES
from trainer.spec.serve import ServeSpec

_FP32 = 4


def replica_memory(serve: ServeSpec, weights: WeightCounts | None) -> Estimate:
    """Return the memory of a replica whose model has these `weights`; None: the model is an estimator for tables.

    The batch is small beside the weights and is not counted. An engine such as ONNX has its own copy of the weights,
    while torch's model stays to reproduce the golden rows.
    """
    if weights is None:
        name = "Python, scikit-learn or xgboost"
        return Estimate((Term(name, "measured before a model is loaded", "", TABLE_LIBRARIES, is_base=True),))
    copies = 1 if serve.engine == "native" else 2
    libraries = Term("Python, torch and transformers", "measured before a model is loaded", "", LIBRARIES, is_base=True)
    model = times("weights of the model and of its engine", "copies x 4 bytes x weights", copies, _FP32, weights.all)
    return Estimate(without_empty((libraries, model)))
