"""The search as a stage of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.console import Console
from cluster.files import write_json
from trainer.pipeline.run import Run
from trainer.runs.result import RunResult, SearchRecord
from tune.dashboard import table_of
from tune.schedulers import ends_early
from tune.search import Search
from tune.search_space import prepared_variants
from tune.trial_store import Records
from tune.warm_start import VARIANTS, variants_of


def search(run: Run, measure: Callable[[Run, RunResult], Mapping[str, float]] | None = None) -> RunResult:
    """Prepare every variant of the rows that the space needs, then search; returns the winner.

    A run that goes on keeps its trials. `measure` says what serving a model costs, where the spec asks for it.
    """
    # A search that goes on has trials of its own to finish, and one of them may win, whatever the space is now.
    before = variants_of(run.folder)
    wanted = prepared_variants(run.spec, Records(run.folder, run.spec).values())
    prepared = {**before, **{key: str(run.prepare(spec).folder) for key, spec in wanted.items() if key not in before}}
    write_json(run.folder / VARIANTS, prepared)
    if run.spec.tune and run.spec.tune.scheduler != "none" and not ends_early(run.spec):
        run.console.detail(
            f"tune.scheduler={run.spec.tune.scheduler} needs single-worker trials and is ignored; asha and median work with more",
            style="yellow",
        )
    found = Search(
        run.spec, prepared, run.folder, run.sizes, (lambda result: measure(run, result)) if measure else None
    )
    result = run.stages.run("tune", found.run, found.progress)
    metric = run.spec.evaluate.metric
    keys = list(run.spec.tune.space) if run.spec.tune else []
    names = [key.removeprefix("train.") for key in keys]
    run.console.table("Trials", ["trial", *names, "epochs", "", f"validation {metric}"], table_of(result.trials, keys))
    if result.search:
        _tell_of_finals(run.console, result.search)
    return result


def _tell_of_finals(console: Console, search: SearchRecord) -> None:
    if not search.finalists:
        return
    names = list(search.finalists[0].figures)
    rows = [
        [
            one.name,
            len(one.seeds),
            *[one.figures.get(name) for name in names],
            "yes" * one.on_front,
            ", ".join(one.broken),
        ]
        for one in search.finalists
    ]
    console.table("Finals", ["trial", "seeds", *names, "on the front", "does not keep to"], rows)
