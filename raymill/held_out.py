"""The held-out rows that engines are checked on. `serve` knows nothing of prepared data, so they come from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from serve.engines.benchmark import HeldOut
    from trainer.contract.contract import Contract
    from trainer.inference.evaluate import LabeledRows
    from trainer.registry.registry import Version
    from trainer.spec.run import RunSpec

#: Function that returns the held-out rows to check a version's engines on, or None if the rows are gone.
HeldOutLoader: TypeAlias = "Callable[[Version], HeldOut | None]"


def load_held_out_rows(version: Version) -> HeldOut | None:
    """Return the held-out rows that a version was registered with, to check engines on; None if the rows are gone."""
    from cluster.errors import ModelError
    from trainer.contract.contract import load_contract
    from trainer.pipeline.version_spec import load_version_spec
    from trainer.registry.register import load_registered_rows

    try:
        rows = load_registered_rows(version)
    except (ModelError, KeyError):
        return None
    return build_held_out(load_version_spec(version), load_contract(version.folder), rows)


def build_held_out(spec: RunSpec, contract: Contract, rows: LabeledRows) -> HeldOut:
    """Return `rows` with their targets and the metric that an engine must keep."""
    from serve.engines.benchmark import HeldOut
    from trainer.inference.evaluate import encode_targets

    targets = encode_targets(contract, rows)
    metric, is_maximized = spec.evaluate.metric, spec.evaluate.mode == "max"
    return HeldOut(rows.columns, targets, metric, is_maximized, spec.evaluate.calibration_bins)
