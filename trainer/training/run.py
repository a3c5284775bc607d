"""The choice of a training loop: the task's own loop, the estimator loop or the torch loop."""

from __future__ import annotations

from trainer.training.context import TrainContext


def run_training(context: TrainContext) -> None:
    """Train with the task's own loop if it has one, else with the estimator loop or the torch loop.

    All ranks call this. The loops are imported in this function because only the torch loop needs torch.
    """
    if context.task.train is not None:
        context.task.train(context)
    elif context.task.learns_from_features:
        from trainer.training.estimator_loop import train_estimator

        train_estimator(context)
    else:
        from trainer.training.loop import train_model

        train_model(context)
