"""The cost of serving a finalist of a search: a replica behind HTTP under a short load test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raymill.endpoint import rows_to_check, serve_versions

if TYPE_CHECKING:
    from trainer.pipeline.run import Run
    from trainer.runs.result import RunResult

# Different inputs in the load test.
_INPUTS = 256
# Longest wait for one endpoint to be gone before the next one starts.
_STOP_WITHIN_S = 30.0


def measure_serving(run: Run, result: RunResult) -> dict[str, float]:
    """Return the metrics of `trainer.spec.tune.SERVE_FIGURES` for a finalist: replicas by `serve:`, clients by
    `tune.load_test`."""
    import tempfile
    from pathlib import Path

    from cluster.console import Console
    from cluster.ports import free_port
    from serve.load_test import measure
    from trainer.data.prepared import Prepared
    from trainer.inference import held_out
    from trainer.registry import register

    assert run.spec.tune is not None
    load = run.spec.tune.load
    prepared = Prepared(result.prepared)
    inputs = held_out.sample_requests(prepared, _INPUTS)
    rows = rows_to_check(result.spec, prepared.contract, held_out.held_out(prepared, "validation"))
    with tempfile.TemporaryDirectory(dir=run.folder) as storage:
        version = register.provisional(result, Path(storage))
        # Loopback without keys: the candidate is not public yet, and keys do not change the cost.
        local = {"host": "127.0.0.1", "port": free_port(), "keys": None, "insecure": False, "too_long": "truncate"}
        spec = result.spec.serve.model_copy(update={**local, "models": ()})
        with serve_versions([version], spec, Console(), held_out=lambda _: rows, stop_within_s=_STOP_WITHIN_S) as url:
            return measure(url, inputs, load.connections, load.seconds)
