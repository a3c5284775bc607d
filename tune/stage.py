"""The search as a stage of a run."""

from __future__ import annotations

from trainer.result import RunResult
from trainer.stages import Run
from tune.search import Search
from tune.space import prepared_variants


def search(run: Run) -> RunResult:
    """Prepare every variant of the rows that the space needs, then search; returns the winner."""
    prepared = {key: str(run.prepare(spec).folder) for key, spec in prepared_variants(run.spec).items()}
    found = Search(run.spec, prepared, run.folder, run.sizes)
    result = run.stage("tune", found.run, found.progress)
    metric = run.spec.evaluate.metric
    keys = list(run.spec.tune.space) if run.spec.tune else []
    rows = [[trial.name, *[trial.shown(key) for key in keys], trial.epochs, trial.metric] for trial in result.trials]
    run.console.table("Trials", ["trial", *keys, "epochs", f"validation {metric}"], rows)
    return result
