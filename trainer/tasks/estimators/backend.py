"""How the workers of one training communicate."""

from __future__ import annotations

from typing import Literal

from trainer.spec.run import RunSpec
from trainer.tasks.base import Task
from trainer.tasks.estimators.catalog import DEFAULT_KIND, get_estimator_class


def worker_backend(task: Task, spec: RunSpec) -> Literal["torch", "xgboost", "none"]:
    """Return how workers communicate: by torch.distributed, by XGBoost's collective, or not at all."""
    if not task.learns_from_features:
        return "torch"
    return get_estimator_class(spec.model.kind or DEFAULT_KIND).backend
