"""raymill's front door: the Python API, one function a stage. `raymill_cli` is the command line over it.

Nothing heavy is imported before a stage runs: `raymill --help` answers without torch, Ray or pydantic. Over 400 lines
because the whole API stands here, a few lines a function: one page to look it up on.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.console import Console
    from serve.app import HeldOutOf
    from serve.engines.choose import HeldOut
    from trainer.contract import Contract
    from trainer.data.prepared import Prepared
    from trainer.evaluate import LabelledRows
    from trainer.predictor import Predictor
    from trainer.registry import Version
    from trainer.result import RunResult
    from trainer.spec import RunSpec
    from trainer.spec import Serve as ServeSpec
    from trainer.stages import Outcome, Run

#: Where models are looked for when no storage is named; the same as the spec's default.
STORAGE = "~/.raymill"
# Different inputs that a replica is asked about when its cost is measured.
_ASKED_ROWS = 256
# Before the next one is started, one endpoint has to be gone.
_STOP_WITHIN_S = 30.0


def prepare(
    spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = (), console: Console | None = None
) -> Outcome:
    """Make the prepared rows of `spec`, or find them; Ray is started only if they have to be made and are many."""
    run = _run(spec, overrides, console, "prepare")
    prepared = _prepared(run)
    return run.outcome(
        fingerprint=prepared.contract.fingerprint,
        prepared=str(prepared.folder),
        rows=prepared.summary["rows"],
        bad_rows=prepared.summary["quarantined"],
        left_out=prepared.summary["left_out"],
    )


def data_report(
    spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = (), console: Console | None = None
) -> dict[str, Any]:
    """Prepare the rows of `spec`, or find them, and write data.html about them into the run's folder.

    Returns the outcome, the page's path as `report`, and its figures as `data`.
    """
    from cluster.errors import SpecError
    from cluster.progress import Progress
    from trainer import run_folder, tasks
    from trainer.report import data_page
    from trainer.spec_load import load as load_spec

    loaded = load_spec(spec, overrides)
    task = tasks.get(loaded.task)
    if not (task.texts and task.target.has_classes):
        raise SpecError(f"the data report is about texts and their classes, not for {loaded.task}",
                        "use `raymill prepare`, which says what it used and what not")  # fmt: skip
    run = _run(loaded, (), console, "data")
    prepared = _prepared(run)
    latest = Progress()

    def tell(progress: Progress) -> None:
        nonlocal latest
        latest = progress

    def work() -> data_page.Facts:
        facts = data_page.gather(prepared, tell)
        text = (run.folder / run_folder.SPEC).read_text(encoding="utf-8")
        page = run.folder / data_page.FILE
        data_page.write(page, facts, title=f"{run.spec.name}: the data", prepared=prepared, spec_text=text)
        return facts

    facts = run.stage("report", work, lambda: latest)
    outcome = run.outcome(fingerprint=prepared.contract.fingerprint, report=str(run.folder / data_page.FILE))
    found = [finding["text"] for finding in data_page.findings(facts)]
    return {**outcome.as_dict(), "data": facts.summary(), "findings": found}


def train(
    spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = (), console: Console | None = None
) -> Outcome:
    """Prepare and train once; the outcome names the best epoch's checkpoint and its figures on the validation rows."""
    return _train(_run(spec, overrides, console, "train", without_search=True))


def resume(
    run: str | Path,
    *,
    overrides: Iterable[str] = (),
    storage: str | Path = STORAGE,
    console: Console | None = None,
    then: Callable[[Run, Outcome], Outcome] | None = None,
) -> Outcome:
    """Go on with a run that was interrupted, from its last checkpoint: the result is that of a run that never stopped.
    Of a search, finished trials are kept, others go on, and the space or the number of trials may be another now.

    `run` is the run's folder or its name under `storage`. Only keys that leave the result as it is may be overridden.
    """
    from trainer.going_on import interrupted

    loaded, folder, kind = interrupted(str(run), _folder(storage), overrides)
    from trainer.stages import Run

    this = Run(loaded, _console(console), kind, folder)
    if kind == "run":
        return _whole(this, then)
    return _tune(this) if kind == "tune" else _train(this)


def repeat(
    run: str | Path,
    *,
    overrides: Iterable[str] = (),
    storage: str | Path = STORAGE,
    console: Console | None = None,
) -> Outcome:
    """Train once more from the whole spec of an earlier run, every default as it was then; says what else differs."""
    from trainer.going_on import repetition

    loaded, differences = repetition(str(run), _folder(storage), overrides)
    shown = _console(console)
    for difference in differences:
        shown.say(f"not as then: {difference}", style="yellow")
    return _train(_run(loaded, (), shown, "train", without_search=True))


def _train(run: Run) -> Outcome:
    with _working_on(run), _ray(run):
        run.start_worker_early()
        result = run.train(run.prepare())
    return run.keep(result)


@contextlib.contextmanager
def _working_on(run: Run) -> Iterator[None]:
    """Have the run to this process alone; say how an interrupted one goes on, where there is something to go on from."""
    from trainer import run_folder

    with run_folder.held(run.folder):
        try:
            yield
        except BaseException:
            run.say_how_to_go_on()
            raise


def tune(
    spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = (), console: Console | None = None
) -> Outcome:
    """Prepare and search; the outcome names the winner's checkpoint. Raises `SpecError` for a spec without `tune:`."""
    from cluster.errors import SpecError

    run = _run(spec, overrides, console, "tune")
    if run.spec.tune is None:
        raise SpecError(
            "the spec has no `tune:`, so there is nothing to search",
            "add `tune: {space: {...}}`, or use `raymill train`",
        )
    return _tune(run)


def _tune(run: Run) -> Outcome:
    with _working_on(run), _ray(run):
        result = _searched(run)
    return run.keep(result)


def _searched(run: Run) -> RunResult:
    from tune.stage import search

    return search(run, _cost)


def _cost(run: Run, result: RunResult) -> dict[str, float]:
    """Return what serving a model costs, with a replica as `serve:` has it and the clients of `tune.load`."""
    import tempfile

    from cluster.connect import free_port
    from cluster.console import Console
    from serve.load import measure
    from trainer import registering
    from trainer.data.prepared import Prepared

    assert run.spec.tune is not None
    load = run.spec.tune.load
    prepared = Prepared(result.prepared)
    inputs = registering.sample_requests(prepared, _ASKED_ROWS)
    rows = _judged_by(result.spec, prepared.contract, registering.held_out(prepared, "validation"))
    with tempfile.TemporaryDirectory(dir=run.folder) as storage:
        version = registering.provisional(result, Path(storage))
        # What serving costs has nothing to do with who may ask, and the model is nobody else's business yet.
        alone = {"host": "127.0.0.1", "port": free_port(), "keys": None, "insecure": False, "too_long": "truncate"}
        spec = result.spec.serve.model_copy(update={**alone, "models": ()})
        with serving([version], spec, Console(), held_out=lambda _: rows, stop_within_s=_STOP_WITHIN_S) as url:
            return measure(url, inputs, load.connections, load.seconds)


def run(
    spec: str | Path | RunSpec | Mapping[str, Any],
    *,
    overrides: Iterable[str] = (),
    console: Console | None = None,
    then: Callable[[Run, Outcome], Outcome] | None = None,
) -> Outcome:
    """Everything the spec asks: prepare, search or train, evaluate, register, pass the gate.

    `then` is called at the end while Ray is still up (that is how `--serve` goes on).
    """
    return _whole(_run(spec, overrides, console, "run"), then)


def _whole(run: Run, then: Callable[[Run, Outcome], Outcome] | None) -> Outcome:
    if then is not None and _starts_here(run.spec):
        from serve.ingress import check_access, check_port

        check_access(run.spec.serve)
        check_port(run.spec.serve.host, run.spec.serve.port)
    with _ray(run, serving=then is not None):
        with _working_on(run):
            if run.spec.tune is None:
                run.start_worker_early()
                result = run.train(run.prepare())
            else:
                result = _searched(run)
        outcome = run.finish(result)
        return then(run, outcome) if then else outcome


def plan(spec: str | Path | RunSpec | Mapping[str, Any], *, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return what will run where.

    Raises `ResourceError` with the sum when it cannot fit, and for what else `run` would refuse before it reads rows.
    """
    from cluster.connect import connect
    from cluster.plan import check, joined_nodes, local_nodes
    from trainer.layout import demands, layout
    from trainer.spec_load import load
    from trainer.stages import must_be_there

    loaded = load(spec, overrides)
    must_be_there(loaded, fetch=False)
    if _starts_here(loaded):
        nodes = local_nodes(loaded.cluster.cpus)
    else:
        with connect(loaded.cluster.address):
            nodes = joined_nodes()
    sizes = layout(loaded, nodes)
    stages = demands(loaded, sizes)
    check(stages, nodes)
    return {
        "nodes": [node._asdict() for node in nodes],
        "stages": [{**demand._asdict(), "cpus": demand.cpus, "gpus": demand.gpus} for demand in stages],
        "cpus_per_worker": sizes.cpus_per_worker,
        "trials_at_once": sizes.trials_at_once,
    }


def tasks() -> list[dict[str, Any]]:
    """Return the tasks there are: name, columns by role, request, answer, metric, and what `model` may be."""
    from trainer import tasks as known

    found = []
    for name in known.TASKS:
        task = known.get(name)
        example = {"labels": ["a", "b"], "target": {"mean": 0.0, "std": 1.0}}
        found.append(
            {
                "task": name,
                "columns": dict(task.roles),
                "model": task.models,
                "request": task.request,
                "answer": task.target.example(example),
                "metric": task.target.metric,
                "metrics": list(task.target.metrics_known),
            }
        )
    return found


def evaluate(
    model: str,
    *,
    data: str | None = None,
    storage: str | Path = STORAGE,
    address: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Return the figures of a registered model on its held-out rows or on a labelled file, and write a report.

    Computed in this process, or on the Ray at `address`.
    """
    from trainer.model_stages import evaluate_version

    return evaluate_version(_version(model, storage), data, _folder(storage), _console(console), address)


def predict(
    model: str,
    given: str | list[str],
    output: str | Path | None = None,
    *,
    storage: str | Path = STORAGE,
    address: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write predictions for csv, jsonl or parquet files with Ray Data; returns the output's path and counts.

    Without an `output` it is `<input>.predictions.jsonl` in the working directory.
    """
    from trainer.model_stages import predict_version

    first = given if isinstance(given, str) else given[0]
    target = Path(output) if output else Path(f"{Path(first).stem}.predictions.jsonl")
    return predict_version(
        _version(model, storage), given, target.absolute(), _folder(storage), _console(console), address
    )


@contextlib.contextmanager
def serve(
    model: str,
    *,
    storage: str | Path = STORAGE,
    address: str | None = None,
    console: Console | None = None,
    overrides: Iterable[str] = (),
    **changes: Any,
) -> Iterator[str]:
    """Serve a registered model while the block runs; yields its URL.

    `changes` override keys of the spec's `serve:`, `overrides` any, as `serve.replicas=2`.
    """
    from cluster.connect import connect, joins
    from serve.ingress import check_access, check_port, prepared
    from trainer import run_folder
    from trainer.model_stages import spec_of

    version = _version(model, storage)
    spec = spec_of(version, [*overrides, *_serve_keys(changes)])
    versions = [version, *[_version(ref, storage) for ref in spec.serve.models]]
    check_access(spec.serve)
    shown = _console(console)
    folder = run_folder.create(spec.model_copy(update={"storage": str(_folder(storage))}), "serve")
    shown.say(f"{', '.join(each.ref for each in versions)}: {folder}", style="bold")
    shown.send_rays_output_to(folder / run_folder.RAY_LOG)
    with contextlib.ExitStack() as stack:
        if not joins(address):
            check_port(spec.serve.host, spec.serve.port)
            stack.enter_context(prepared(spec.serve))
        with shown.stage("ray"):
            stack.enter_context(connect(address, quiet=shown.quiet))
        yield stack.enter_context(serving(versions, spec.serve, shown, log_folder=str(folder)))


@contextlib.contextmanager
def serving(
    versions: Sequence[Version],
    spec: ServeSpec,
    console: Console,
    *,
    held_out: HeldOutOf | None = None,
    log_folder: str | None = None,
    stop_within_s: float = 1.0,
) -> Iterator[str]:
    """Serve `versions` on the connected Ray while the block runs; yields the URL.

    `held_out` returns the rows on which engines are checked, by default those that a version was registered with. At the end
    `stop_within_s` are waited for it to be gone: where Ray is stopped next, that ends what is left.
    """
    from cluster.plan import check, joined_nodes
    from cluster.progress import Progress, run_watched
    from serve.server import start, stop
    from trainer.layout import serving_demand

    check([serving_demand(spec)], joined_nodes())
    told: list[str] = []

    def body() -> Any:
        return start(versions, spec, held_out or _held_out, log_folder=log_folder, say=told.append)

    def look() -> None:
        while told:
            console.say(f"    {told.pop(0)}")
        show(Progress())

    try:
        with console.stage("serve") as show:
            url = run_watched(body, look)
    except KeyboardInterrupt:  # the work goes on in its thread, on a cluster that stays when this process ends
        stop(versions[0].name, started_serve=False, within_s=stop_within_s)
        raise
    look()
    try:
        yield url.url
    finally:
        stop(versions[0].name, started_serve=url.started_serve, within_s=stop_within_s)


def optimize(
    model: str,
    *,
    storage: str | Path = STORAGE,
    console: Console | None = None,
    overrides: Iterable[str] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Build and measure the engines a model may be served with on this machine, and store the choice beside the version.

    `changes` override keys of the spec's `serve:`. Returns what was measured, and the choice.
    """
    from serve.engines import choose
    from trainer.model_stages import spec_of

    version = _version(model, storage)
    spec = spec_of(version, [*overrides, *_serve_keys(changes)])
    shown = _console(console)
    with shown.stage("optimize"):
        return choose.optimize(version, spec.serve, _held_out(version), shown.say)


def _held_out(version: Version) -> HeldOut | None:
    """Return the rows a version was registered with, to check engines on; None where they are not there any more."""
    from cluster.errors import ModelError
    from trainer import contract as contracts
    from trainer import registering
    from trainer.model_stages import spec_of

    try:
        rows = registering.held_out_of(version)
    except (ModelError, KeyError):
        return None
    return _judged_by(spec_of(version), contracts.load(version.folder), rows)


def _judged_by(spec: RunSpec, contract: Contract, rows: LabelledRows) -> HeldOut:
    from serve.engines.choose import HeldOut
    from trainer.evaluate import targets_of

    how = spec.evaluate
    return HeldOut(rows.columns, targets_of(contract, rows), how.metric, how.mode == "max", how.calibration_bins)


def manifest(model: str, *, storage: str | Path = STORAGE, overrides: Iterable[str] = (), **changes: Any) -> str:
    """Return the config of a model's endpoint for `serve deploy`, as YAML."""
    import yaml

    from serve.ingress import check_access
    from serve.manifest import config
    from trainer.model_stages import spec_of

    version = _version(model, storage)
    spec = spec_of(version, [*overrides, *_serve_keys(changes)])
    check_access(spec.serve)
    return yaml.safe_dump(config(model, str(_folder(storage)), spec.serve), sort_keys=False)


def _serve_keys(changes: Mapping[str, Any]) -> list[str]:
    return [f"serve.{key}={json.dumps(value)}" for key, value in changes.items()]


def wait_for_interrupt() -> None:
    """Block until Ctrl-C or SIGTERM, which raise KeyboardInterrupt here."""
    while True:
        signal.pause()


def contract_show(model: str, *, storage: str | Path = STORAGE) -> dict[str, Any]:
    """Return the contract of a registered model or of a prepared or model folder, as `trainer.contract_text.Found` says."""
    from trainer import contract_text

    found = contract_text.find(model, _folder(storage))
    return {**found._asdict(), "folder": str(found.folder)}


def contract_diff(first: str, second: str, *, storage: str | Path = STORAGE) -> dict[str, Any]:
    """Return what differs between two contracts, field by field, each named as for `contract_show`."""
    from trainer import contract_text
    from trainer.contract_diff import differences

    before, after = (contract_text.find(model, _folder(storage)) for model in (first, second))
    changes = differences(before.contract, after.contract)
    return {
        "same": not changes,
        "first": {"model": before.model, "fingerprint": before.fingerprint},
        "second": {"model": after.model, "fingerprint": after.fingerprint},
        "changes": [change._asdict() for change in changes],
    }


def load(model: str, *, storage: str | Path = STORAGE) -> Predictor:
    """Return a registered model in this process, every file checked; `load("name@champion").predict(["..."])`."""
    from trainer.predictor import Predictor

    return Predictor(_version(model, storage).folder)


def _folder(storage: str | Path) -> Path:
    return Path(storage).expanduser().absolute()


def _version(model: str, storage: str | Path) -> Version:
    """Return a registered version after checking every file of it."""
    from trainer import registry

    version = registry.Registry(storage).find(model)
    registry.verify(version)
    return version


def _run(
    spec: str | Path | RunSpec | Mapping[str, Any],
    overrides: Iterable[str],
    console: Console | None,
    kind: str,
    *,
    without_search: bool = False,
) -> Run:
    from trainer.spec_load import load as load_spec
    from trainer.stages import Run

    loaded = load_spec(spec, overrides)
    return Run(loaded.model_copy(update={"tune": None}) if without_search else loaded, _console(console), kind)


def _prepared(run: Run) -> Prepared:
    """The run's prepared rows; Ray is started only if they have to be made and are many."""
    from trainer.data import prepare as preparing

    if preparing.is_small(run.spec, run.files) or preparing.find(run.spec, run.files):
        return run.prepare()
    with _ray(run):
        return run.prepare()


@contextlib.contextmanager
def _ray(run: Run, *, serving: bool = False) -> Iterator[None]:
    """Ray for one run: refused before it starts where this machine can never hold it, and after joining elsewhere."""
    from cluster.connect import connect
    from cluster.plan import joined_nodes, local_nodes

    here = _starts_here(run.spec)
    is_served = serving or (run.spec.tune is not None and run.spec.tune.is_served)
    if here:
        run.place(local_nodes(run.spec.cluster.cpus), serving=is_served)
    with contextlib.ExitStack() as stack:
        if here and is_served:
            from serve.ingress import prepared

            stack.enter_context(prepared(run.spec.serve))
        started = time.monotonic()
        with run.console.stage("ray"):
            stack.enter_context(connect(run.spec.cluster.address, cpus=run.spec.cluster.cpus, quiet=run.console.quiet))
        run.seconds["ray"] = round(time.monotonic() - started, 2)
        run.place(joined_nodes(), serving=is_served)
        yield


def _starts_here(spec: RunSpec) -> bool:
    """Whether a Ray would be started on this machine for `spec`."""
    from cluster.connect import joins

    if joins(spec.cluster.address):
        return False
    ray = sys.modules.get("ray")
    return ray is None or not ray.is_initialized()


def _console(console: Console | None) -> Console:
    from cluster.console import Console

    return console or Console()


def main() -> None:
    """Run the command line."""
    import raymill_cli

    raymill_cli.cli(prog_name="raymill")


if __name__ == "__main__":
    main()
