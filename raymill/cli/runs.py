"""Commands that run stages: run, plan, prepare, data, train, tune."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import RESUME, SPEC, SPEC_OR_RUN, InOrder, shared_options, with_storage

if TYPE_CHECKING:
    from trainer.pipeline.outcome import Outcome
    from trainer.pipeline.run import Run


@click.command("run")
@SPEC_OR_RUN
@RESUME
@click.option("--serve", "then_serve", is_flag=True, help="Stay up afterwards and answer HTTP requests.")
@shared_options("set", "storage")
def run_command(
    context: CommandContext,
    spec: str | None,
    resume: str | None,
    then_serve: bool,
    overrides: tuple[str, ...],
    storage: str | None,
) -> None:
    """Do everything SPEC asks: prepare, tune or train, evaluate, register, promote."""
    _one_of(spec=spec, resume=resume)

    def run_pipeline(then: Callable[[Run, Outcome], Outcome] | None) -> Outcome:
        if resume:
            where = storage or raymill.STORAGE
            return raymill.resume(resume, overrides=overrides, storage=where, console=context.console, then=then)
        return raymill.run(str(spec), overrides=with_storage(overrides, storage), console=context.console, then=then)

    if not then_serve:
        outcome = run_pipeline(None)
        context.emit(outcome.as_dict(), _summary_lines(outcome, storage))
        return

    def serve_it(run: Run, outcome: Outcome) -> Outcome:
        from trainer.registry.registry import Registry

        version = Registry(run.spec.storage).find(f"{outcome.model}@{outcome.version}")
        with raymill.serve_versions([version], run.spec.serve, context.console, log_folder=str(run.folder)) as url:
            lines = [*_summary_lines(outcome, storage), f"listening on {url}"]
            with contextlib.suppress(KeyboardInterrupt):
                context.emit({**outcome.as_dict(), "url": url}, lines)
                raymill.wait_for_interrupt()
            context.console.say("stopping; `raymill serve` starts it again")
        return outcome

    run_pipeline(serve_it)


def _one_of(**given: str | None) -> None:
    """Raise `click.UsageError` unless exactly one of a command's ways to say what to train is given."""
    ways = [f"--{name} RUN" if name != "spec" else "SPEC" for name in given]
    named = [way for way, value in zip(ways, given.values(), strict=True) if value is not None]
    if len(named) != 1:
        raise click.UsageError(f"give one of {', '.join(ways)}; given: {', '.join(named) or 'none'}")


def _summary_lines(outcome: Outcome, storage: str | None) -> list[str]:
    from trainer.targets.metrics.summary import figures_line

    where = f" --storage {storage}" if storage else ""
    test = outcome.metrics.get("test", {})
    return [
        f"{outcome.model}@{outcome.version}  {figures_line(test)}",
        f"{'promoted' if outcome.promoted else 'not promoted'}: {outcome.reason}",
        f"report: {outcome.report}",
        f"next:   raymill serve {outcome.model}{'' if outcome.promoted else f'@{outcome.version}'}{where}",
    ]


@click.command("plan")
@SPEC
@shared_options("set", "storage")
def plan_command(context: CommandContext, spec: str, overrides: tuple[str, ...], storage: str | None) -> None:
    """Show what will run where, added up against the cluster."""
    plan = raymill.plan(spec, overrides=with_storage(overrides, storage))
    rows = [
        [s["stage"], s["what"], s["processes"], s["cpus_each"], s["gpus_each"], s["cpus"], s["gpus"]]
        for s in plan["stages"]
    ]
    context.console.table("Plan", ["stage", "what", "processes", "CPU each", "GPU each", "CPU", "GPU"], rows)
    cpus, gpus = (sum(node[kind] for node in plan["nodes"]) for kind in ("cpus", "gpus"))
    context.emit(plan, [f"it fits: {len(plan['nodes'])} node(s) with {cpus:g} CPU and {gpus:g} GPU in all"])


@click.command("prepare")
@SPEC
@shared_options("set", "storage")
def prepare_command(context: CommandContext, spec: str, overrides: tuple[str, ...], storage: str | None) -> None:
    """Make the prepared rows, or find them."""
    outcome = raymill.prepare(spec, overrides=with_storage(overrides, storage), console=context.console)
    lines = [f"rows: {outcome.prepared}", f"contract: {outcome.fingerprint}"]
    context.emit(outcome.as_dict(), lines)


@click.group("data", cls=InOrder)
def data_group() -> None:
    """What the rows of a spec are like: report."""


@data_group.command("report")
@SPEC
@shared_options("set", "storage")
def data_report_command(context: CommandContext, spec: str, overrides: tuple[str, ...], storage: str | None) -> None:
    """Write a page about SPEC's rows: classes, lengths, bad rows, leaks, duplicates, doubtful labels."""
    report = raymill.data_report(spec, overrides=with_storage(overrides, storage), console=context.console)
    context.emit(report, [*report["findings"], f"report: {report['report']}"])


@click.command("train")
@SPEC_OR_RUN
@RESUME
@click.option("--from", "repeated", metavar="RUN", help="Repeat an earlier run, every default as it was then.")
@shared_options("set", "storage")
def train_command(
    context: CommandContext,
    spec: str | None,
    resume: str | None,
    repeated: str | None,
    overrides: tuple[str, ...],
    storage: str | None,
) -> None:
    """Prepare and train once."""
    _one_of(spec=spec, resume=resume, **{"from": repeated})
    where, console = storage or raymill.STORAGE, context.console
    if resume:
        outcome = raymill.resume(resume, overrides=overrides, storage=where, console=console)
    elif repeated:
        outcome = raymill.repeat(repeated, overrides=overrides, storage=where, console=console)
    else:
        outcome = raymill.train(str(spec), overrides=with_storage(overrides, storage), console=console)
    _emit_training(context, outcome)


@click.command("tune")
@SPEC_OR_RUN
@RESUME
@shared_options("set", "storage")
def tune_command(
    context: CommandContext, spec: str | None, resume: str | None, overrides: tuple[str, ...], storage: str | None
) -> None:
    """Prepare and search; the winner's spec is written as best.yaml."""
    _one_of(spec=spec, resume=resume)
    if resume:
        where = storage or raymill.STORAGE
        outcome = raymill.resume(resume, overrides=overrides, storage=where, console=context.console)
    else:
        outcome = raymill.tune(str(spec), overrides=with_storage(overrides, storage), console=context.console)
    _emit_training(context, outcome)


def _emit_training(context: CommandContext, outcome: Outcome) -> None:
    from trainer.targets.metrics.summary import figures_line

    lines = [f"validation  {figures_line(outcome.metrics['validation'])}", f"checkpoint: {outcome.checkpoint}"]
    lines += [f"report: {outcome.report}"]
    context.emit(outcome.as_dict(), lines)
