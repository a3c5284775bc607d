"""The stages of a run: prepare, train, tune, or all of them. Also resume and repeat a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.serving_cost import measure_serving
from raymill.session import STORAGE, console_or_default, is_on_this_machine, ray_for, storage_folder

if TYPE_CHECKING:
    from cluster.console import Console
    from trainer.data.prepared import Prepared
    from trainer.pipeline.outcome import Outcome
    from trainer.pipeline.run import Run
    from trainer.runs.result import RunResult
    from trainer.spec.run import RunSpec


def prepare(
    spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = (), console: Console | None = None
) -> Outcome:
    """Make the prepared rows of `spec`, or reuse them. Starts Ray only if many rows must be prepared.

    The outcome's `same_run` names a finished run that a new one would repeat: there are no new rows.
    """
    from trainer.data.folder import FILES_LEFT_OUT
    from trainer.runs.resume import find_same_run

    run = _new_run(spec, overrides, console, "prepare")
    with _locked(run):
        prepared = _prepared_rows(run)
        return run.write_outcome(
            fingerprint=prepared.contract.fingerprint,
            prepared=str(prepared.folder),
            same_run=find_same_run(run.spec, prepared.folder),
            rows=prepared.summary["rows"],
            bad_rows=prepared.summary["quarantined"],
            left_out=prepared.summary["left_out"],
            files_left_out=prepared.summary.get(FILES_LEFT_OUT, {}),
        )


def data_report(
    spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = (), console: Console | None = None
) -> dict[str, Any]:
    """Prepare the rows of `spec`, or reuse them, and write a page about them, data.html, into the run's folder.

    Returns the outcome with three more keys: `report`, the page's path; `data`, its numbers; and `findings`, sentences.
    """
    from cluster.errors import SpecError
    from cluster.progress import Progress
    from trainer.report.data_page import DATA_REPORT_FILE
    from trainer.report.data_reports import data_report_of
    from trainer.runs.folder import SPEC_FILE
    from trainer.tasks.catalog import get_task
    from trainer.tasks.load_spec import load_spec

    loaded = load_spec(spec, overrides)
    task = get_task(loaded.task)
    report = data_report_of(task)
    if report is None:
        raise SpecError(
            f"the data report needs texts with classes, or texts to continue, but task {loaded.task} has none",
            "use `raymill prepare`, which prints how many rows it used and left out",
        )
    run = _new_run(loaded, (), console, "data")
    latest = Progress()

    def on_progress(progress: Progress) -> None:
        nonlocal latest
        latest = progress

    def write_report(prepared: Prepared) -> Any:
        facts = report.collect(prepared, run.spec, on_progress)
        text = (run.folder / SPEC_FILE).read_text(encoding="utf-8")
        page = run.folder / DATA_REPORT_FILE
        report.write(page, facts, title=f"{run.spec.name}: the data", prepared=prepared, spec_text=text)
        return facts

    with _locked(run):
        prepared = _prepared_rows(run)
        facts = run.stages.run("report", lambda: write_report(prepared), lambda: latest)
        outcome = run.write_outcome(
            fingerprint=prepared.contract.fingerprint, report=str(run.folder / DATA_REPORT_FILE)
        )
    findings = [finding.text for finding in report.findings(facts)]
    return {**outcome.as_dict(), "data": facts.summary(), "findings": findings}


def train(
    spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = (), console: Console | None = None
) -> Outcome:
    """Prepare and train once. The outcome names the best epoch's checkpoint and its metrics on the validation rows."""
    return _train(_new_run(spec, overrides, console, "train", without_search=True))


def tune(
    spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = (), console: Console | None = None
) -> Outcome:
    """Prepare and search. The outcome names the best trial's checkpoint. Raises `SpecError` without `tune:`."""
    from cluster.errors import SpecError

    run = _new_run(spec, overrides, console, "tune")
    if run.spec.tune is None:
        raise SpecError(
            "the spec has no section `tune:`, so there is nothing to search",
            "add `tune: {space: {...}}` to the spec, or use `raymill train`",
        )
    return _tune(run)


def run(
    spec: str | Path | RunSpec | Mapping[str, Any],
    *,
    overrides: Iterable[str] = (),
    console: Console | None = None,
    then: Callable[[Run, Outcome], Outcome] | None = None,
    continue_unfinished: bool = False,
    if_changed: bool = False,
    lock: str | None = None,
    lock_wait_s: float = 0,
) -> Outcome:
    """Prepare, search or train, evaluate, register, and promote through the gate.

    `then` is called at the end with the run and its outcome, while Ray still runs; `--serve` uses it. With
    `continue_unfinished`, the newest run of this spec in the storage is resumed if it was interrupted; otherwise a new
    one starts. With `if_changed`, nothing is trained if a finished run has had the same spec and the same rows: the outcome
    is then that of `prepare`, whose `same_run` names it. `lock` is the name of a lock in the storage folder that is held meanwhile, so that two runs of one pipeline
    never overlap, on whatever machines. Raises `ResourceError` if another run holds it for `lock_wait_s`.
    """
    from trainer.runs.folder import lock_pipeline
    from trainer.runs.resume import find_unfinished
    from trainer.tasks.load_spec import load_spec

    loaded = load_spec(spec, overrides)
    with contextlib.ExitStack() as stack:
        if lock is not None:
            stack.enter_context(lock_pipeline(Path(loaded.storage), lock, lock_wait_s))
        unfinished = find_unfinished(loaded, "run") if continue_unfinished else None
        if unfinished is not None:
            folder, changes = unfinished
            return resume(folder, overrides=changes, storage=loaded.storage, console=console, then=then)
        if if_changed:
            prepared = prepare(loaded, console=console)
            if prepared.same_run is not None:
                return prepared
        return _run_pipeline(_new_run(loaded, (), console, "run"), then)


def resume(
    run: str | Path,
    *,
    overrides: Iterable[str] = (),
    storage: str | Path = STORAGE,
    console: Console | None = None,
    then: Callable[[Run, Outcome], Outcome] | None = None,
) -> Outcome:
    """Resume an interrupted run from its last checkpoint. The result is the same as without the interruption.

    `run` is the run's folder, its name under `storage`, the beginning of that name, or `last`. Only keys that do not
    change the result may be overridden. A search keeps its finished trials and resumes the others; its space and its
    number of trials may change.
    """
    from trainer.pipeline.run import Run
    from trainer.runs.resume import load_for_resume

    loaded, folder, kind = load_for_resume(str(run), storage_folder(storage), overrides)
    resumed = Run(loaded, console_or_default(console), kind, folder)
    if kind == "run":
        return _run_pipeline(resumed, then)
    return _tune(resumed) if kind == "tune" else _train(resumed)


def repeat(
    run: str | Path,
    *,
    overrides: Iterable[str] = (),
    storage: str | Path = STORAGE,
    console: Console | None = None,
) -> Outcome:
    """Train again from the complete spec of an earlier run, which includes the defaults of that time.

    Prints everything else that differs from the earlier run, for example versions of packages.
    """
    from trainer.runs.resume import load_for_repeat

    loaded, differences = load_for_repeat(str(run), storage_folder(storage), overrides)
    console = console_or_default(console)
    for difference in differences:
        console.print(f"differs from the earlier run: {difference}", style="yellow")
    return _train(_new_run(loaded, (), console, "train", without_search=True))


def _train(run: Run) -> Outcome:
    from trainer.pipeline.finish import finish_training

    with _locked(run):
        with ray_for(run):
            run.start_worker_early()
            result = run.train(run.prepare())
        return finish_training(run, result)


def _tune(run: Run) -> Outcome:
    from trainer.pipeline.finish import finish_training

    with _locked(run):
        with ray_for(run):
            result = _search(run)
        return finish_training(run, result)


def _run_pipeline(run: Run, then: Callable[[Run, Outcome], Outcome] | None) -> Outcome:
    from trainer.pipeline.finish import register_result

    if then is not None and is_on_this_machine(run.spec):
        from serve.haproxy import check_access, check_port

        check_access(run.spec.serve)
        check_port(run.spec.serve.host, run.spec.serve.port)
    with _locked(run), ray_for(run, serving=then is not None):
        if run.spec.tune is None:
            run.start_worker_early()
            result = run.train(run.prepare())
        else:
            result = _search(run)
        outcome = register_result(run, result)
        return then(run, outcome) if then else outcome


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Hold the run's lock while the block runs. If the block raises, record the error, and print how to resume the run.

    The lock says that the run is running, so it is held until the run has written its result, and while it serves.
    """
    from trainer.pipeline.messages import print_resume_hint
    from trainer.runs.folder import lock_run
    from trainer.runs.journal import RESULT, clear_error, record_error

    with lock_run(run.folder):
        clear_error(run.folder)
        try:
            yield
        except BaseException as error:
            record_error(run.folder, error)
            if not (run.folder / RESULT).is_file():
                print_resume_hint(run.console, run.folder, is_search=run.spec.tune is not None)
            raise
        finally:
            run.gauges.close()


def _search(run: Run) -> RunResult:
    from tune.stage import run_search

    return run_search(run, measure_serving)


def _new_run(
    spec: str | Path | RunSpec | Mapping[str, Any],
    overrides: Iterable[str],
    console: Console | None,
    kind: str,
    *,
    without_search: bool = False,
) -> Run:
    from trainer.pipeline.run import Run
    from trainer.tasks.load_spec import load_spec

    loaded = load_spec(spec, overrides)
    if without_search:
        loaded = loaded.model_copy(update={"tune": None})
    return Run(loaded, console_or_default(console), kind)


def _prepared_rows(run: Run) -> Prepared:
    """Make the run's prepared rows, or reuse them. Starts Ray only if many rows must be prepared."""
    if not run.prepares_with_ray:
        return run.prepare()
    with ray_for(run):
        return run.prepare()
