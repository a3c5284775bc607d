"""Measure the cost of serving a finalist of a search: serve it over HTTP and run a short load test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raymill.endpoint import serve_versions
from raymill.held_out import build_held_out

if TYPE_CHECKING:
    from trainer.pipeline.run import Run
    from trainer.runs.result import RunResult

# Number of different inputs in the load test.
_INPUTS = 256
# How long to wait at most until an endpoint has stopped, so that the next endpoint finds its cores free.
_STOP_WITHIN_S = 30.0


def measure_serving(run: Run, result: RunResult) -> dict[str, float]:
    """Return the metrics in `trainer.spec.tune.SERVING_METRICS` for a finalist.

    The spec's `serve:` sets the replicas, and `tune.load_test` sets the clients.
    """
    import tempfile
    from pathlib import Path

    from cluster.console import Console
    from cluster.ports import free_port
    from serve.load_test import run_load_test
    from trainer.data.prepared import Prepared
    from trainer.inference.held_out import load_held_out, sample_requests
    from trainer.registry.register import register_candidate

    assert run.spec.tune is not None
    load_test = run.spec.tune.load_test
    prepared = Prepared(result.prepared)
    inputs = sample_requests(prepared, _INPUTS)
    rows = build_held_out(result.spec, prepared.contract, load_held_out(prepared, "validation"))
    with tempfile.TemporaryDirectory(dir=run.folder) as storage:
        version = register_candidate(result, Path(storage))
        # Serve on loopback without keys: the candidate is not public yet, and keys do not change the cost.
        local = {"host": "127.0.0.1", "port": free_port(), "keys": None, "insecure": False, "overlong": "truncate"}
        spec = result.spec.serve.model_copy(update={**local, "models": ()})
        # The cost is that of the chosen engine, so it is chosen first.
        with serve_versions(
            [version],
            spec,
            Console(),
            held_out=lambda _: rows,
            wait_for_engine=True,
            stop_within_s=_STOP_WITHIN_S,
        ) as url:
            return run_load_test(url, inputs, load_test.connections, load_test.seconds)
