"""Commands that run stages: run, prepare, data, train, tune."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import RESUME, SPEC, SPEC_OR_RUN, OrderedGroup, shared_options, with_address, with_storage

if TYPE_CHECKING:
    from trainer.pipeline.outcome import Outcome
    from trainer.pipeline.run import Run


@click.command("run")
@SPEC_OR_RUN
@RESUME
@click.option(
    "--continue", "continue_unfinished", is_flag=True, help="Resume the last run of SPEC if it was interrupted."
)
@click.option("--if-changed", is_flag=True, help="Train nothing if a finished run of SPEC has had the same rows.")
@click.option("--serve", "then_serve", is_flag=True, help="Then serve the model until Ctrl-C.")
@click.option(
    "--lock", metavar="NAME", help="Hold this lock of the storage, so that two runs of a pipeline never overlap."
)
@click.option("--lock-wait", "lock_wait_s", type=click.FloatRange(0), default=0, metavar="SECONDS",
              help="How long to wait for another run that holds the lock. Default: 0.")  # fmt: skip
@shared_options("set", "storage", "address")
def run_command(
    context: CommandContext,
    spec: str | None,
    resume: str | None,
    continue_unfinished: bool,
    if_changed: bool,
    then_serve: bool,
    lock: str | None,
    lock_wait_s: float,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
) -> None:
    """Run the whole pipeline, from raw data to the registry.

    Prepares, searches or trains, evaluates on the held-out rows, registers, and promotes through the gate.
    """
    _check_one_given(spec=spec, resume=resume)
    if resume and lock:
        raise click.UsageError("--lock is for a new run of SPEC; --resume RUN locks the run itself")
    if resume and continue_unfinished:
        raise click.UsageError("--continue is for SPEC; --resume RUN names the run")
    if if_changed and (resume or then_serve):
        raise click.UsageError("--if-changed is for SPEC, without --serve: there may be no new model")

    def run_pipeline(then: Callable[[Run, Outcome], Outcome] | None) -> Outcome:
        if resume:
            return raymill.resume(
                resume,
                overrides=with_address(overrides, address),
                storage=storage or raymill.STORAGE,
                console=context.console,
                then=then,
            )
        return raymill.run(
            str(spec),
            overrides=with_address(with_storage(overrides, storage), address),
            console=context.console,
            then=then,
            continue_unfinished=continue_unfinished,
            if_changed=if_changed,
            lock=lock,
            lock_wait_s=lock_wait_s,
        )

    if not then_serve:
        outcome = run_pipeline(None)
        if outcome.same_run is not None:
            context.emit(outcome.as_dict(), [f"nothing new: the run {outcome.same_run} has had the same spec and rows"])
            return
        model = outcome.model if outcome.promoted else f"{outcome.model}@{outcome.version}"
        context.emit(outcome.as_dict(), [*summary_lines(outcome), f"next:   {_serve_command(model, storage)}"])
        return

    def serve_result(run: Run, outcome: Outcome) -> Outcome:
        from trainer.registry.registry import Registry

        version = Registry(run.spec.storage).find(f"{outcome.model}@{outcome.version}")
        with raymill.serve_versions([version], run.spec.serve, context.console, log_folder=str(run.folder)) as url:
            lines = [*summary_lines(outcome), f"listening on {url}"]
            with contextlib.suppress(KeyboardInterrupt):
                context.emit({**outcome.as_dict(), "url": url}, lines)
                raymill.wait_for_interrupt()
            again = _serve_command(f"{outcome.model}@{outcome.version}", storage)
            context.console.print(f"stopping; `{again}` serves it again")
        return outcome

    run_pipeline(serve_result)


def _check_one_given(**sources: str | None) -> None:
    """Raise `click.UsageError` unless exactly one source is given: SPEC, --resume RUN or --from RUN."""
    words = {name: "SPEC" if name == "spec" else f"--{name} RUN" for name in sources}
    named = [words[name] for name, value in sources.items() if value is not None]
    if len(named) != 1:
        raise click.UsageError(f"give exactly one of {', '.join(words.values())}; given: {', '.join(named) or 'none'}")


def _serve_command(model: str | None, storage: str | None) -> str:
    return f"raymill serve {model}{f' --storage {storage}' if storage else ''}"


def summary_lines(outcome: Outcome) -> list[str]:
    from trainer.targets.metrics.summary import metrics_line

    test = outcome.metrics.get("test", {})
    return [
        f"{outcome.model}@{outcome.version}  {metrics_line(test)}",
        f"{'promoted' if outcome.promoted else 'not promoted'}: {outcome.reason}",
        *([outcome.note] if outcome.note else []),
        f"report: {outcome.report}",
    ]


@click.command("prepare")
@SPEC
@shared_options("set", "storage", "address")
def prepare_command(
    context: CommandContext, spec: str, overrides: tuple[str, ...], storage: str | None, address: str | None
) -> None:
    """Make the prepared rows of SPEC, or reuse them."""
    outcome = raymill.prepare(
        spec, overrides=with_address(with_storage(overrides, storage), address), console=context.console
    )
    lines = [f"rows: {outcome.prepared}", f"contract: {outcome.fingerprint}"]
    context.emit(outcome.as_dict(), lines)


@click.group("data", cls=OrderedGroup)
def data_group() -> None:
    """Commands about the rows of a spec: report."""


@data_group.command("report")
@SPEC
@shared_options("set", "storage")
def data_report_command(context: CommandContext, spec: str, overrides: tuple[str, ...], storage: str | None) -> None:
    """Write a page about the rows of SPEC.

    It shows classes, lengths, bad rows, leaks, duplicates and doubtful labels.
    """
    report = raymill.data_report(spec, overrides=with_storage(overrides, storage), console=context.console)
    context.emit(report, [*report["findings"], f"report: {report['report']}"])


@click.command("train")
@SPEC_OR_RUN
@RESUME
@click.option("--from", "repeated", metavar="RUN", help="Repeat an earlier run with the defaults of that time.")
@shared_options("set", "storage", "address")
def train_command(
    context: CommandContext,
    spec: str | None,
    resume: str | None,
    repeated: str | None,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
) -> None:
    """Prepare and train once."""
    _check_one_given(spec=spec, resume=resume, **{"from": repeated})
    storage_folder, console = storage or raymill.STORAGE, context.console
    if resume:
        outcome = raymill.resume(
            resume, overrides=with_address(overrides, address), storage=storage_folder, console=console
        )
    elif repeated:
        outcome = raymill.repeat(
            repeated, overrides=with_address(overrides, address), storage=storage_folder, console=console
        )
    else:
        outcome = raymill.train(
            str(spec), overrides=with_address(with_storage(overrides, storage), address), console=console
        )
    _emit_training(context, outcome)


@click.command("tune")
@SPEC_OR_RUN
@RESUME
@shared_options("set", "storage", "address")
def tune_command(
    context: CommandContext,
    spec: str | None,
    resume: str | None,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
) -> None:
    """Prepare and search. Writes the best trial's spec to best.yaml."""
    _check_one_given(spec=spec, resume=resume)
    if resume:
        storage_folder = storage or raymill.STORAGE
        outcome = raymill.resume(
            resume, overrides=with_address(overrides, address), storage=storage_folder, console=context.console
        )
    else:
        outcome = raymill.tune(
            str(spec), overrides=with_address(with_storage(overrides, storage), address), console=context.console
        )
    _emit_training(context, outcome)


def _emit_training(context: CommandContext, outcome: Outcome) -> None:
    from trainer.targets.metrics.summary import metrics_line

    lines = [
        f"validation  {metrics_line(outcome.metrics['validation'])}",
        f"checkpoint: {outcome.checkpoint}",
        f"report: {outcome.report}",
    ]
    context.emit(outcome.as_dict(), lines)
