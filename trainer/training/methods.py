"""The methods of `train.method` by kind."""

from __future__ import annotations

from collections.abc import Callable

from trainer.optim.precision import Precision
from trainer.training.batch_source import BatchSource
from trainer.training.context import TrainContext
from trainer.training.method import TrainingMethod


def make_method(context: TrainContext, batches: BatchSource, precision: Precision) -> TrainingMethod:
    """Return what the training's method does around its steps."""
    return _METHODS[context.spec.train.method.kind](context, batches, precision)


def _pairs(context: TrainContext, batches: BatchSource, precision: Precision) -> TrainingMethod:
    from trainer.training.preference_methods import PairMethod

    return PairMethod(context, batches, precision)


def _labels(context: TrainContext, batches: BatchSource, precision: Precision) -> TrainingMethod:
    from trainer.training.preference_methods import LabelMethod

    return LabelMethod(context, batches, precision)


def _rollouts(context: TrainContext, batches: BatchSource, precision: Precision) -> TrainingMethod:
    from trainer.training.rollout_method import RolloutMethod

    return RolloutMethod(context, batches, precision)


_METHODS: dict[str, Callable[[TrainContext, BatchSource, Precision], TrainingMethod]] = {
    "sft": TrainingMethod,
    "dpo": _pairs,
    "ipo": _pairs,
    "orpo": _pairs,
    "simpo": _pairs,
    "kto": _labels,
    "grpo": _rollouts,
}
