"""List the built-in tasks."""

from __future__ import annotations

from typing import Any


def tasks() -> list[dict[str, Any]]:
    """Return the built-in tasks, each as a dict.

    It holds the name, the columns by role, the models that `model:` accepts, what an input of a request looks like, an
    example answer, and the metrics.
    """
    from trainer.tasks.catalog import TASKS, get_task

    example_fit = {"labels": ["a", "b"], "target": {"mean": 0.0, "std": 1.0}}
    listed = []
    for name in TASKS:
        task = get_task(name)
        listed.append(
            {
                "task": name,
                "columns": dict(task.roles),
                "model": task.models,
                "request": task.request,
                "answer": task.target.example(example_fit),
                "metric": task.target.default_metric,
                "metrics": list(task.target.metric_names),
            }
        )
    return listed
