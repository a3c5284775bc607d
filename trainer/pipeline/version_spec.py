"""The spec of a registered version. Its own file: `raymill serve` needs nothing else of this package to start."""

from __future__ import annotations

import json
from collections.abc import Iterable

from trainer.contract.contract import load_contract
from trainer.registry.registry import Version
from trainer.runs.folder import SPEC_FILE
from trainer.spec.run import RunSpec
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.load_spec import load_spec


def load_version_spec(version: Version, overrides: Iterable[str] = ()) -> RunSpec:
    """Return the spec of a registered version. The code of a custom task is compared with the contract before it runs."""
    contract = load_contract(version.folder)
    task_of_contract(contract)
    return load_spec(version.folder / SPEC_FILE, [*overrides, f"task={json.dumps(contract.task)}"])
