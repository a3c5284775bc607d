"""Held-out rows and sample requests from prepared data."""

from __future__ import annotations

from typing import Any

from trainer.data.prepared import Prepared
from trainer.inference.evaluate import LabeledRows, with_digest
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.roles import input_roles, raw_targets


def load_held_out(prepared: Prepared, part: str = "test") -> LabeledRows:
    """Return the raw rows of the test part of prepared data, or of another part, with their targets."""
    task = task_of_contract(prepared.contract)
    rows = prepared.part(part)
    columns = {role: rows.raw(role) for role in input_roles(task, prepared.contract)}
    return with_digest(columns, raw_targets(task, rows))


def sample_requests(prepared: Prepared, n_rows: int) -> list[Any]:
    """Return the first `n_rows` validation rows in the form of requests."""
    rows = prepared.part("validation")
    task = task_of_contract(prepared.contract)
    columns = {role: rows.raw(role, n_rows) for role in input_roles(task, prepared.contract)}
    return task.as_request(prepared.contract, columns)
