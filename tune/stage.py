"""The search as a stage of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.console import Console
from cluster.files import write_json
from trainer.pipeline.run import Run
from trainer.runs.result import RunResult, SearchRecord
from tune.dashboard import trial_rows
from tune.schedulers import stops_early
from tune.search import Search
from tune.search_space import specs_to_prepare
from tune.trial_store import TrialStore
from tune.warm_start import VARIANTS, read_variants


def run_search(run: Run, measure: Callable[[Run, RunResult], Mapping[str, float]] | None = None) -> RunResult:
    """Prepare every variant of the rows that the space needs, then search. Return the winner.

    A resumed run keeps its trials. `measure` load-tests a model in serving, if the spec has serving metrics.
    """
    prepared = _prepare_variants(run)
    tune = run.spec.tune
    if tune and tune.scheduler != "none" and not stops_early(run.spec):
        run.console.detail(
            f"tune.scheduler={tune.scheduler} is ignored: trials with several workers can use asha and median only, and "
            "estimators neither; set `cluster.workers: 1` to use it",
            style="yellow",
        )
    search = Search(
        run.spec, prepared, run.folder, run.resources, (lambda result: measure(run, result)) if measure else None
    )
    result = run.stages.run("tune", search.run, search.progress)
    keys = list(tune.space) if tune else []
    names = [key.removeprefix("train.") for key in keys]
    columns = ["trial", *names, "epochs", "", f"validation {run.spec.evaluate.metric}"]
    run.console.table("Trials", columns, trial_rows(result.trials, keys))
    if result.search:
        _print_finalists(run.console, result.search)
    return result


def _prepare_variants(run: Run) -> dict[str, str]:
    """Return the prepared folders of the search by `preparation_key`, and write them into the run's folder."""
    # Earlier trials of a resumed search need their rows: one of them may win, even if the space has changed since.
    earlier = read_variants(run.folder)
    specs = specs_to_prepare(run.spec, TrialStore(run.folder, run.spec).all_values())
    new = {key: str(run.prepare(spec).folder) for key, spec in specs.items() if key not in earlier}
    prepared = {**earlier, **new}
    write_json(run.folder / VARIANTS, prepared)
    return prepared


def _print_finalists(console: Console, search: SearchRecord) -> None:
    if not search.finalists:
        return
    names = list(search.finalists[0].metrics)
    rows = [
        [
            finalist.name,
            len(finalist.seeds),
            *[finalist.metrics.get(name) for name in names],
            "yes" * finalist.on_front,
            ", ".join(finalist.violated),
        ]
        for finalist in search.finalists
    ]
    console.table("Finals", ["trial", "seeds", *names, "on the front", "violates"], rows)
