"""The search as a stage of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.console import Console
from cluster.progress import Progress
from trainer.data.parts import PARTS, VALIDATION
from trainer.data.prepared import Prepared
from trainer.defaults.resolve import apply_choices, choose_search_epochs, read_choices, store_choices
from trainer.pipeline.run import Run
from trainer.runs.result import RunResult, SearchRecord
from trainer.spec.run import RunSpec
from trainer.tasks.load_spec import override_spec
from tune.dashboard import trial_rows
from tune.schedulers import stops_early
from tune.search import Search
from tune.search_gauges import publish_search
from tune.search_space import points_to_prepare
from tune.trial_notices import notices_of_trials
from tune.trial_store import TrialStore
from tune.variants import prepare_variants


def run_search(run: Run, measure: Callable[[Run, RunResult], Mapping[str, float]] | None = None) -> RunResult:
    """Prepare every variant of the rows that the space needs, then search. Return the winner.

    A resumed run keeps its trials. `measure` load-tests a model in serving, if the spec has serving metrics.
    """
    prepared = prepare_variants(run)
    _warn_of_different_rows(run.console, [Prepared(Path(folder)) for folder in prepared.values()])
    tune = run.spec.tune
    if tune and tune.scheduler != "none" and not stops_early(run.spec):
        run.console.detail(
            f"tune.scheduler={tune.scheduler} is ignored: trials with several workers can use asha and median only, and "
            "estimators neither; set `cluster.workers: 1` to use it",
            style="yellow",
        )
    search = Search(
        _fix_epochs(run, prepared),
        prepared,
        run.folder,
        run.resources,
        (lambda result: measure(run, result)) if measure else None,
    )

    def progress() -> Progress:
        latest = search.progress()
        publish_search(run.gauges.gauges, search.state())
        return latest

    result = run.run_on_machines("tune", search.run, progress)
    keys = list(tune.space) if tune else []
    names = [key.removeprefix("train.") for key in keys]
    columns = ["trial", *names, "epochs", "", f"validation {run.spec.evaluate.metric}"]
    run.console.table("Trials", columns, trial_rows(result.trials, keys))
    if result.search:
        _print_finalists(run.console, result.search)
    for text in notices_of_trials(run.folder, TrialStore(run.folder, run.spec)):
        run.notice(text)
    return result


def _fix_epochs(run: Run, prepared: Mapping[str, str]) -> RunSpec:
    """Return the run's spec with a number of epochs, which schedulers need before the first trial starts.

    It is the largest that any variant of the rows, or any kind of estimator in the space, would have. Everything else
    that is `auto` is chosen for each trial, because it depends on the trial's values.
    """
    spec, choices = run.spec, read_choices(run.folder)
    if spec.tune is not None and not choices:
        by_key = points_to_prepare(spec, TrialStore(run.folder, spec).all_values())
        specs = {key: override_spec(spec, values) for key, values in by_key.items() if key in prepared}
        kinds = spec.tune.space["model.kind"].sample_values if "model.kind" in spec.tune.space else [None]
        variants = [
            (variant if kind is None else override_spec(variant, {"model.kind": kind}), Prepared(Path(prepared[key])))
            for key, variant in specs.items()
            for kind in kinds
        ]
        choices = choose_search_epochs(variants)
        store_choices(choices, run.folder)
    resolved = apply_choices(spec, choices)
    run.record_choices(resolved)
    return resolved.spec


def _warn_of_different_rows(console: Console, variants: Sequence[Prepared]) -> None:
    """Say so if trials are validated on different rows: their metrics are then not strictly comparable."""
    counts = [
        (
            variant.summary["rows"][PARTS[VALIDATION]],
            {label: parts[VALIDATION] for label, parts in variant.summary["rows_by_class"].items()},
        )
        for variant in variants
    ]
    if any(count != counts[0] for count in counts):
        sizes = sorted({rows for rows, _ in counts})
        console.detail(
            f"values of `data.` or `model.base` in the search lead to different validation rows ({sizes[0]:,} to "
            f"{sizes[-1]:,}), so the metrics of such trials are not strictly comparable",
            style="yellow",
        )


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
