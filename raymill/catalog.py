"""The built-in tasks."""

from __future__ import annotations

from typing import Any


def tasks() -> list[dict[str, Any]]:
    """Return the built-in tasks: name, columns by role, request, answer, metrics, and what `model` may be."""
    from trainer.tasks import catalog

    listed = []
    for name in catalog.TASKS:
        task = catalog.get(name)
        fitted = {"labels": ["a", "b"], "target": {"mean": 0.0, "std": 1.0}}
        listed.append(
            {
                "task": name,
                "columns": dict(task.roles),
                "model": task.models,
                "request": task.request,
                "answer": task.target.example(fitted),
                "metric": task.target.metric,
                "metrics": list(task.target.metrics_known),
            }
        )
    return listed
