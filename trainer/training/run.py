"""The choice of a training loop: the task's own loop, the estimator loop or the torch loop."""

from __future__ import annotations

import dataclasses

from trainer.defaults.resolve import resolve_spec
from trainer.training.context import TrainContext


def run_training(context: TrainContext) -> None:
    """Train with the task's own loop if it has one, else with the estimator loop or the torch loop.

    Keys that are still `auto` get their values first. All ranks call this. The loops are imported in this function
    because only the torch loop needs torch.
    """
    if context.task.train is not None:
        context.task.train(context)
        return
    context = dataclasses.replace(context, spec=resolve_spec(context.spec, context.prepared).spec)
    if context.task.learns_from_features:
        from trainer.training.estimator_loop import train_estimator

        train_estimator(context)
    else:
        from trainer.training.loop import train_model

        train_model(context)
