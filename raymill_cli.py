"""The command line: options to `raymill`'s functions, results to a terminal or JSON, errors to exit codes.

Nothing heavy is imported here: click only, and the rest when a command runs. Over 400 lines because every command
stands here, a few lines each: one page to look a command up on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import raymill

if TYPE_CHECKING:
    from trainer.stages import Outcome, Run

Command = Callable[..., Any]


class Front:
    """One command's options and outputs."""

    def __init__(self, *, as_json: bool, verbose: bool, debug: bool) -> None:
        from cluster.console import Console, OwnOutput

        self.as_json, self.debug = as_json, debug
        self.code = 0
        self.own = OwnOutput(shows_rays_output=verbose)
        self.console = Console(sys.stderr, self.own)

    def tell(self, result: dict[str, Any], lines: list[str]) -> None:
        """Print the result on stdout: as one JSON object, or as `lines`."""
        out = self.own.stdout
        print(json.dumps(result, ensure_ascii=False) if self.as_json else "\n".join(lines), file=out, flush=True)

    def run(self, work: Callable[[Front], None]) -> None:
        """Do `work`; end the process with the exit code of `cluster.errors.OUTCOMES`."""
        signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            work(self)
        except KeyboardInterrupt:
            self.code = self._interrupted()
        except click.UsageError as error:
            error.show(self.own.stderr)
            self.code = error.exit_code
        except Exception as error:
            self.code = self._failed(error)
        # Threads that still wait for a stopped Ray must not keep the process.
        for stream in (self.own.stdout, self.own.stderr, sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.code)

    def _interrupted(self) -> int:
        from cluster.errors import outcome

        self.console.say(
            "\nstopped, and so is everything that was started here. The same command finds rows that were prepared to the end.",
            style="yellow",
        )
        if self.as_json:
            self.tell({"error": "interrupted"}, [])
        return outcome(KeyboardInterrupt()).exit_code

    def _failed(self, error: Exception) -> int:
        from cluster.errors import UserError, outcome

        if isinstance(error, UserError):
            self.console.say(f"error: {error}", style="red")
        else:
            text = str(error).strip() or "no message"
            self.console.say(f"raymill failed: {type(error).__name__}: {text.splitlines()[0]}", style="red")
            self.console.say("  this is not your mistake; --debug shows the traceback, --verbose Ray's own output")
        if self.debug:
            self.console.say("".join(traceback.format_exception(error)))
        if self.as_json:
            self.tell({"error": str(error)}, [])
        return outcome(error).exit_code


def _as_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _shared(*names: str) -> Callable[[Command], Command]:
    """Add the options that many commands share; --json, --verbose and --debug become one `front`."""
    known = {
        "set": click.option(
            "--set", "overrides", multiple=True, metavar="a.b=VALUE", help="Override one key of the spec."
        ),
        "storage": click.option("--storage", type=click.Path(), help="Folder of prepared data, runs and models."),
        "address": click.option("--address", help="Ray to use: auto, host:port or ray://host:port."),
        "json": click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else."),
        "verbose": click.option("--verbose", is_flag=True, help="Show Ray's own output instead of logging it."),
        "debug": click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    }

    def add(command: Command) -> Command:
        def with_front(*, as_json: bool, verbose: bool, debug: bool, **given: Any) -> None:
            Front(as_json=as_json, verbose=verbose, debug=debug).run(lambda front: command(front, **given))

        with_front.__doc__ = command.__doc__
        wrapped: Command = with_front
        for name in reversed([*names, "json", "verbose", "debug"]):
            wrapped = known[name](wrapped)
        return wrapped

    return add


def _overrides(overrides: tuple[str, ...], storage: str | None) -> list[str]:
    """--storage on a command line is relative to the working directory; in a spec it is to the spec's file."""
    return [*overrides, *([f"storage={json.dumps(str(Path(storage).expanduser().absolute()))}"] if storage else [])]


class _InOrder(click.Group):
    """Lists commands in the order they are defined, which is the order they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="raymill", message="%(version)s")
def cli() -> None:
    """One YAML spec from raw data to an HTTP prediction, on Ray."""


_SPEC = click.argument("spec", type=click.Path())
_SPEC_OR_RUN = click.argument("spec", required=False, type=click.Path())
_RESUME = click.option("--resume", metavar="RUN", help="Go on with an interrupted run: its folder, or its name.")
_MODEL = click.argument("model")


@cli.command("run")
@_SPEC_OR_RUN
@_RESUME
@click.option("--serve", "then_serve", is_flag=True, help="Stay up afterwards and answer HTTP requests.")
@_shared("set", "storage")
def run_command(
    front: Front,
    spec: str | None,
    resume: str | None,
    then_serve: bool,
    overrides: tuple[str, ...],
    storage: str | None,
) -> None:
    """Do everything SPEC asks: prepare, tune or train, evaluate, register, promote."""
    _one_of(spec=spec, resume=resume)

    def whole(then: Callable[[Run, Outcome], Outcome] | None) -> Outcome:
        if resume:
            where = storage or raymill.STORAGE
            return raymill.resume(resume, overrides=overrides, storage=where, console=front.console, then=then)
        return raymill.run(str(spec), overrides=_overrides(overrides, storage), console=front.console, then=then)

    if not then_serve:
        outcome = whole(None)
        front.tell(outcome.as_dict(), _told(outcome, storage))
        return

    def serve_it(run: Run, outcome: Outcome) -> Outcome:
        from trainer.registry import Registry

        version = Registry(run.spec.storage).find(f"{outcome.model}@{outcome.version}")
        with raymill.serving([version], run.spec.serve, front.console, log_folder=str(run.folder)) as url:
            lines = [*_told(outcome, storage), f"listening on {url}"]
            with contextlib.suppress(KeyboardInterrupt):
                front.tell({**outcome.as_dict(), "url": url}, lines)
                raymill.wait_for_interrupt()
            front.console.say("stopping; `raymill serve` starts it again")
        return outcome

    whole(serve_it)


def _one_of(**given: str | None) -> None:
    """Raise `click.UsageError` unless exactly one of a command's ways to say what to train is given."""
    ways = [f"--{name} RUN" if name != "spec" else "SPEC" for name in given]
    named = [way for way, value in zip(ways, given.values(), strict=True) if value is not None]
    if len(named) != 1:
        raise click.UsageError(f"give one of {', '.join(ways)}; given: {', '.join(named) or 'none'}")


def _told(outcome: Outcome, storage: str | None) -> list[str]:
    from cluster.console import figures_line

    where = f" --storage {storage}" if storage else ""
    test = outcome.metrics.get("test", {})
    return [
        f"{outcome.model}@{outcome.version}  {figures_line(test)}",
        f"{'promoted' if outcome.promoted else 'not promoted'}: {outcome.reason}",
        f"report: {outcome.report}",
        f"next:   raymill serve {outcome.model}{'' if outcome.promoted else f'@{outcome.version}'}{where}",
    ]


@cli.command("plan")
@_SPEC
@_shared("set", "storage")
def plan_command(front: Front, spec: str, overrides: tuple[str, ...], storage: str | None) -> None:
    """Show what will run where, added up against the cluster."""
    found = raymill.plan(spec, overrides=_overrides(overrides, storage))
    rows = [
        [s["stage"], s["what"], s["processes"], s["cpus_each"], s["gpus_each"], s["cpus"], s["gpus"]]
        for s in found["stages"]
    ]
    front.console.table("Plan", ["stage", "what", "processes", "CPU each", "GPU each", "CPU", "GPU"], rows)
    cpus, gpus = (sum(node[kind] for node in found["nodes"]) for kind in ("cpus", "gpus"))
    front.tell(found, [f"it fits: {len(found['nodes'])} node(s) with {cpus:g} CPU and {gpus:g} GPU in all"])


@cli.command("prepare")
@_SPEC
@_shared("set", "storage")
def prepare_command(front: Front, spec: str, overrides: tuple[str, ...], storage: str | None) -> None:
    """Make the prepared rows, or find them."""
    outcome = raymill.prepare(spec, overrides=_overrides(overrides, storage), console=front.console)
    lines = [f"rows: {outcome.prepared}", f"contract: {outcome.fingerprint}"]
    front.tell(outcome.as_dict(), lines)


@cli.group("data", cls=_InOrder)
def data_group() -> None:
    """What the rows of a spec are like: report."""


@data_group.command("report")
@_SPEC
@_shared("set", "storage")
def data_report_command(front: Front, spec: str, overrides: tuple[str, ...], storage: str | None) -> None:
    """Write a page about SPEC's rows: classes, lengths, bad rows, leaks, duplicates, doubtful labels."""
    found = raymill.data_report(spec, overrides=_overrides(overrides, storage), console=front.console)
    front.tell(found, [*found["findings"], f"report: {found['report']}"])


@cli.command("train")
@_SPEC_OR_RUN
@_RESUME
@click.option("--from", "repeated", metavar="RUN", help="Repeat an earlier run, every default as it was then.")
@_shared("set", "storage")
def train_command(
    front: Front,
    spec: str | None,
    resume: str | None,
    repeated: str | None,
    overrides: tuple[str, ...],
    storage: str | None,
) -> None:
    """Prepare and train once."""
    _one_of(spec=spec, resume=resume, **{"from": repeated})
    where, console = storage or raymill.STORAGE, front.console
    if resume:
        outcome = raymill.resume(resume, overrides=overrides, storage=where, console=console)
    elif repeated:
        outcome = raymill.repeat(repeated, overrides=overrides, storage=where, console=console)
    else:
        outcome = raymill.train(str(spec), overrides=_overrides(overrides, storage), console=console)
    _training(front, outcome)


@cli.command("tune")
@_SPEC_OR_RUN
@_RESUME
@_shared("set", "storage")
def tune_command(
    front: Front, spec: str | None, resume: str | None, overrides: tuple[str, ...], storage: str | None
) -> None:
    """Prepare and search; the winner's spec is written as best.yaml."""
    _one_of(spec=spec, resume=resume)
    if resume:
        where = storage or raymill.STORAGE
        outcome = raymill.resume(resume, overrides=overrides, storage=where, console=front.console)
    else:
        outcome = raymill.tune(str(spec), overrides=_overrides(overrides, storage), console=front.console)
    _training(front, outcome)


def _training(front: Front, outcome: Outcome) -> None:
    from cluster.console import figures_line

    lines = [f"validation  {figures_line(outcome.metrics['validation'])}", f"checkpoint: {outcome.checkpoint}"]
    lines += [f"report: {outcome.report}"]
    front.tell(outcome.as_dict(), lines)


@cli.command("evaluate")
@_MODEL
@click.option("--data", type=click.Path(), help="Labelled csv, jsonl or parquet. Default: the held-out rows.")
@_shared("storage", "address")
def evaluate_command(front: Front, model: str, data: str | None, storage: str | None, address: str | None) -> None:
    """Show a registered model's figures on its held-out rows or on a labelled file."""
    from cluster.console import figures_line

    place = storage or raymill.STORAGE
    found = raymill.evaluate(model, data=data, storage=place, address=address, console=front.console)
    front.tell(
        found,
        [
            f"{found['model']}@{found['version']}  {figures_line(found['metrics']['test'])}",
            f"report: {found['report']}",
        ],
    )


@cli.command("predict")
@_MODEL
@click.argument("given", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="A .csv, .jsonl or .parquet file.")
@_shared("storage", "address")
def predict_command(
    front: Front, model: str, given: tuple[str, ...], output: str | None, storage: str | None, address: str | None
) -> None:
    """Write predictions for csv, jsonl or parquet files."""
    place = storage or raymill.STORAGE
    found = raymill.predict(model, list(given), output, storage=place, address=address, console=front.console)
    left_out = found["rows"] - found["predicted"]
    note = f" ({left_out:,} could not be read; their `error` column says why)" if left_out else ""
    front.tell(found, [f"{found['rows']:,} rows to {found['output']}{note}"])


@cli.group("models", cls=_InOrder, invoke_without_command=True)
@click.option("--storage", type=click.Path(), help="Folder of prepared data, runs and models.")
@click.pass_context
def models_group(context: click.Context, storage: str | None) -> None:
    """The registry: list (the default), show, promote, rollback."""
    context.obj = storage
    if context.invoked_subcommand is None:
        Front(as_json=False, verbose=False, debug=False).run(lambda front: _list(front, storage))


def _list(front: Front, storage: str | None) -> None:
    from cluster.console import figures_line
    from cluster.errors import ModelError
    from trainer.registry import Registry

    models = Registry(storage or raymill.STORAGE)
    found = []
    for name in models.names():
        aliases = models.aliases(name)
        for version in models.versions(name):
            held = [alias for alias, number in aliases.items() if number == version.number]
            entry: dict[str, Any] = {"model": version.name, "version": version.number, "aliases": held}
            try:
                found.append({**entry, "metrics": version.metrics["test"]})
            except ModelError as error:  # one damaged version does not hide the others
                found.append({**entry, "metrics": {}, "error": error.problem})
    rows = [
        [f"{m['model']}@{m['version']}", ", ".join(m["aliases"]), m.get("error") or figures_line(m["metrics"])]
        for m in found
    ]
    if rows and not front.as_json:
        front.console.table("Models", ["version", "aliases", "held-out rows"], rows)
    front.tell({"models": found}, [f"{len(found)} version(s) in {models.root}"])


@models_group.command("list")
@_shared("storage")
def list_command(front: Front, storage: str | None) -> None:
    """List every version and its aliases."""
    _list(front, storage or _of_group())


@models_group.command("show")
@_MODEL
@_shared("storage")
def show_command(front: Front, model: str, storage: str | None) -> None:
    """Show one version: figures, lineage, files, moves of its aliases."""
    from cluster.console import figures_line
    from cluster.files import read_json
    from trainer import registry

    models = registry.Registry(storage or _of_group() or raymill.STORAGE)
    version = models.find(model)
    registry.verify(version)
    found = {
        "model": version.name,
        "version": version.number,
        "aliases": [alias for alias, number in models.aliases(version.name).items() if number == version.number],
        "folder": str(version.folder),
        "metrics": version.metrics,
        "lineage": version.lineage,
        "files": read_json(version.folder / registry.MANIFEST)["files"],
        "moves": [move for move in models.moves(version.name) if move["to"] == version.number],
    }
    lines = [f"{version.ref}  {', '.join(found['aliases'])}".rstrip(), f"folder: {version.folder}"]
    lines += [f"{part}: {figures_line(figures)}" for part, figures in version.metrics.items()]
    lines += [f"{key}: {value}" for key, value in version.lineage.items()]
    lines += [
        f"{move['at']} {move['kind']} {move['alias']}: {move['evidence'].get('reason', '')}" for move in found["moves"]
    ]
    front.tell(found, lines)


@models_group.command("promote")
@_MODEL
@click.option("--alias", default="champion", show_default=True, help="The alias to move.")
@_shared("storage")
def promote_command(front: Front, model: str, alias: str, storage: str | None) -> None:
    """Let an alias mean this version from now on, whatever the gate said."""
    from trainer.registry import Registry

    models = Registry(storage or _of_group() or raymill.STORAGE)
    version = models.find(model)
    models.promote(version, alias, {"reason": "promoted by hand"})
    front.tell(
        {"model": version.name, "version": version.number, "alias": alias},
        [f"{version.name}@{alias} is now {version.ref}"],
    )


@models_group.command("rollback")
@_MODEL
@click.option("--alias", default="champion", show_default=True, help="The alias to move back.")
@_shared("storage")
def rollback_command(front: Front, model: str, alias: str, storage: str | None) -> None:
    """Let an alias mean the version it meant before."""
    from trainer.registry import Registry

    name, _, after_at = model.partition("@")
    alias = after_at or alias
    version = Registry(storage or _of_group() or raymill.STORAGE).rollback(name, alias)
    front.tell(
        {"model": version.name, "version": version.number, "alias": alias},
        [f"{version.name}@{alias} is now {version.ref}"],
    )


def _of_group() -> str | None:
    """--storage as given before the subcommand: `raymill models --storage DIR list`."""
    found: str | None = click.get_current_context().obj
    return found


@cli.group("contract", cls=_InOrder)
def contract_group() -> None:
    """How a model's rows become its inputs: show, diff."""


@contract_group.command("show")
@_MODEL
@_shared("storage")
def contract_show_command(front: Front, model: str, storage: str | None) -> None:
    """Show the contract of MODEL: name, name@alias, name@7, or a folder that holds a contract.json."""
    from trainer.contract_text import lines

    found = raymill.contract_show(model, storage=storage or raymill.STORAGE)
    front.tell(found, lines(found))


@contract_group.command("diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_shared("storage")
def contract_diff_command(front: Front, first: str, second: str, storage: str | None) -> None:
    """Name what changed from contract A to contract B, field by field; nothing but `same` if they are."""
    from trainer.contract_diff import Change

    found = raymill.contract_diff(first, second, storage=storage or raymill.STORAGE)
    front.tell(found, [str(Change(**change)) for change in found["changes"]] or ["same"])


_ENGINE = click.option(
    "--engine", help="What computes. Default: the spec's, `auto`: the fastest that keeps the metric."
)
_KEYS_FILE = click.option(
    "--file", "path", type=click.Path(path_type=Path), required=True, help="File of the hashed keys."
)


@cli.command("serve")
@click.argument("models", nargs=-1, required=True)
@click.option("--host", help="Address to listen on. Default: the spec's, 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on. Default: the spec's, 8000.")
@click.option("--replicas", type=click.IntRange(1), help="Copies of the model. Default: the spec's, 1.")
@_ENGINE
@click.option("--keys", type=click.Path(), help="File of API keys; see `raymill keys`.")
@click.option("--insecure", is_flag=True, default=None, help="Listen on other addresses without keys.")
@_shared("set", "storage", "address")
def serve_command(
    front: Front,
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    replicas: int | None,
    engine: str | None,
    keys: str | None,
    insecure: bool | None,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
) -> None:
    """Answer HTTP requests with MODELS (name, name@alias or name@7) until Ctrl-C. The first is what /predict means."""
    wanted = {"host": host, "port": port, "replicas": replicas, "engine": engine, "insecure": insecure,
              "keys": str(Path(keys).absolute()) if keys else None, "models": list(models[1:]) or None}  # fmt: skip
    given = {key: value for key, value in wanted.items() if value is not None}
    with raymill.serve(
        models[0],
        storage=storage or raymill.STORAGE,
        address=address,
        console=front.console,
        overrides=overrides,
        **given,
    ) as url:
        with contextlib.suppress(KeyboardInterrupt):
            front.tell({"url": url}, [f"listening on {url}"])
            raymill.wait_for_interrupt()
        front.console.say("stopping; the same command starts it again")


@cli.command("optimize")
@_MODEL
@_ENGINE
@click.option("--cpus", type=click.FloatRange(1), help="CPU cores of a replica. Default: the spec's, 1.")
@click.option("--max-drop", type=click.FloatRange(0, 100), help="Points of 100 that the metric may lose. Default: 0.3.")
@_shared("set", "storage")
def optimize_command(
    front: Front,
    model: str,
    engine: str | None,
    cpus: float | None,
    max_drop: float | None,
    overrides: tuple[str, ...],
    storage: str | None,
) -> None:
    """Build the engines MODEL may be served with, time them here, and keep the fastest that keeps the metric."""
    wanted = {"engine": engine, "cpus_per_replica": cpus, "max_metric_drop": max_drop}
    given = {key: value for key, value in wanted.items() if value is not None}
    found = raymill.optimize(
        model, storage=storage or raymill.STORAGE, console=front.console, overrides=overrides, **given
    )
    rows = [
        [one["name"], one["rows_per_s"] or None, one["single_ms"] or None, one["metric"], one["largest_move"],
         "chosen" if one["name"] == found["engine"] else one["refused"] or one["note"]]
        for one in found["candidates"]
    ]  # fmt: skip
    columns = ["engine", "rows/s", "one, ms", found["metric"] or "metric", "a score moves", ""]
    front.console.table(f"Engines of {model}", columns, rows)
    front.tell(found, [f"engine: {found['engine']}", f"next:   raymill serve {model}"])


@cli.command("manifest")
@_MODEL
@click.option("--replicas", type=click.IntRange(1), help="Copies of the model. Default: the spec's, 1.")
@_shared("set", "storage")
def manifest_command(
    front: Front, model: str, replicas: int | None, overrides: tuple[str, ...], storage: str | None
) -> None:
    """Print the config of MODEL's endpoint for `serve deploy`."""
    given = {"replicas": replicas} if replicas else {}
    found = raymill.manifest(model, storage=storage or raymill.STORAGE, overrides=overrides, **given)
    front.tell({"config": found}, found.splitlines())


@cli.group("keys")
def keys_group() -> None:
    """API keys of endpoints: a file of hashes."""


@keys_group.command("add")
@click.argument("name")
@_KEYS_FILE
@click.option("--rate", type=click.FloatRange(0.01), help="Requests a second that it may ask. Default: any number.")
@_shared()
def keys_add(front: Front, name: str, path: Path, rate: float | None) -> None:
    """Make the key NAME, print it this once, and keep its hash."""
    from serve.keys import add

    key = add(path, name, rate)
    front.tell({"name": name, "key": key}, [key])


@keys_group.command("remove")
@click.argument("name")
@_KEYS_FILE
@_shared()
def keys_remove(front: Front, name: str, path: Path) -> None:
    """Take the key NAME out; endpoints that are started from now on refuse it."""
    from serve.keys import remove

    remove(path, name)
    front.tell({"removed": name}, [f"{name} is removed"])


@cli.command("tasks")
@_shared()
def tasks_command(front: Front) -> None:
    """List the tasks: their columns, models, requests and answers. One of your own is `task: my_module:MyTask`."""
    found = raymill.tasks()
    lines = []
    for task in found:
        columns = "".join(f"\n    {role:<10} {what}" for role, what in task["columns"].items())
        lines.append(
            f"{task['task']}\n  columns:{columns}\n  model.{task['model']}\n"
            f"  input of a request: {task['request']}\n  answer: {json.dumps(task['answer'])}\n"
            f"  metrics: {', '.join(task['metrics'])} (by default {task['metric']})\n"
        )
    front.tell({"tasks": found}, lines)


@cli.command("schema")
def schema_command() -> None:
    """Print the spec's JSON Schema, for editors."""
    from trainer.spec import RunSpec

    click.echo(json.dumps(RunSpec.model_json_schema(), indent=2))


@cli.command("doctor")
@_shared("storage")
def doctor_command(front: Front, storage: str | None) -> None:
    """Show versions, cores, GPUs, Ray and storage: what is there, what is missing and how to get it."""
    from cluster.doctor import Check, examine
    from trainer.tasks import TASKS

    found = [
        *examine(storage or raymill.STORAGE),
        Check("tasks", f"{len(TASKS)}; `raymill tasks` lists them", True, True, ""),
    ]
    rows = [
        [item.what, item.found, "ok" if item.ok else ("missing" if item.needed else "optional"), item.fix]
        for item in found
    ]
    front.console.table("raymill doctor", ["what", "found", "", "how to get it"], rows)
    bad = [item.what for item in found if item.needed and not item.ok]
    front.tell(
        {"ok": not bad, "checks": [item._asdict() for item in found]},
        ["all is there" if not bad else f"missing: {', '.join(bad)}"],
    )
    front.code = 2 if bad else 0
