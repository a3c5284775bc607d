"""TODO docstring."""

from __future__ import annotations

from typing import Any

from trainer.data.prepared import Prepared
from trainer.inference import evaluate
from trainer.inference.evaluate import LabelledRows
from trainer.tasks import catalog as task_catalog


def held_out(prepared: Prepared, part: str = "test") -> LabelledRows:
    """Return the raw test rows of prepared data, or those of another part."""
    task = task_catalog.of(prepared.contract)
    rows = prepared.part(part)
    columns = {role: rows.raw(role) for role in task.subjects(prepared.contract)}
    return evaluate.labelled(columns, rows.raw(task.target_role))


def sample_requests(prepared: Prepared, n_rows: int) -> list[Any]:
    """Return validation rows as a request has them."""
    rows = prepared.part("validation")
    task = task_catalog.of(prepared.contract)
    columns = {role: rows.raw(role, n_rows) for role in task.subjects(prepared.contract)}
    return task.as_request(prepared.contract, columns)
