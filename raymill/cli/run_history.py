"""Commands about earlier runs: runs list, show, compare, remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

import raymill
from cluster.paths import expand_home
from raymill.cli.context import CommandContext
from raymill.cli.options import DefaultGroup, shared_options

RUN = click.argument("run")
RUNS = click.argument("runs", metavar="RUN...", nargs=-1)
HTML = click.option("--html", type=click.Path(), metavar="FILE", help="Also write a page that needs no network.")

# Lines of a list that the terminal shows; --json and --html have all.
_MAX_LINES = 20


@click.group("runs", cls=DefaultGroup)
def runs_group() -> None:
    """Earlier runs: list, show, compare, remove.

    Without a subcommand, list them. RUN is a name, the beginning of one name, a folder, or `last`.
    """


@runs_group.command("list")
@click.option("--name", help="Only runs of specs with this name.")
@click.option(
    "--kind", help="run, train, tune, prepare, data, evaluate, predict, serve or all. Default: run, train, tune."
)
@click.option(
    "--sort",
    type=click.Choice(["time", "metric"]),
    default="time",
    show_default=True,
    help="The oldest first, or the best first.",
)
@HTML
@shared_options("storage")
def list_command(
    context: CommandContext, name: str | None, kind: str | None, sort: Any, html: str | None, storage: str | None
) -> None:
    """List runs with their state and main metric."""
    from trainer.report import run_facts

    folder = storage or raymill.STORAGE
    runs = raymill.runs(storage=folder, name=name, kind=kind, sort=sort, html=html)
    rows = [
        [
            run["run"],
            run["kind"],
            run_facts.describe_state(run),
            run_facts.describe_start(run),
            run_facts.describe_duration(run),
            run_facts.describe_metric(run),
            run_facts.describe_version(run),
        ]
        for run in runs
    ]
    lines = _align([["run", "kind", "state", "started (UTC)", "took", "main metric", "version"], *rows]) if rows else []
    lines += [f"{run['run']}: {problem}" for run in runs if (problem := run["problem"] or _first_line(run["error"]))]
    context.emit({"runs": runs}, [*lines, f"runs in {folder}: {len(runs)}", *_page_line(html)])


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns. Names stay whole on any terminal, because other commands need them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@runs_group.command("show")
@RUN
@HTML
@shared_options("storage")
def show_command(context: CommandContext, run: str, html: str | None, storage: str | None) -> None:
    """Show the metrics, lineage, files and spec of a run, and how to resume it."""
    from trainer.report import run_facts
    from trainer.targets.metrics.summary import metrics_line

    shown = raymill.show_run(run, storage=storage or raymill.STORAGE, html=html)
    version = run_facts.describe_version(shown)
    facts = {
        "state": run_facts.describe_state(shown),
        "started": f"{run_facts.describe_start(shown)} UTC, took {run_facts.describe_duration(shown)}",
        "version": version,
        "error": shown["error"],
        "problem": shown["problem"],
        "to resume": shown["resume"],
    }
    lines = [shown["run"], *[f"{name}: {value}" for name, value in facts.items() if value]]
    lines += [f"{part}: {metrics_line(metrics)}" for part, metrics in shown["metrics"].items()]
    if shown["stages"]:
        lines.append("stages: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in shown["stages"].items()))
    lines += [f"{name}: {path}" for name, path in shown["paths"].items()]
    lines += [f"{key}: {value}" for key, value in shown["lineage"].items() if key not in ("version", "run")]
    lines += [f"notice: {notice.get('at', '')} {notice.get('text', '')}" for notice in shown["notices"]]
    lines.append("spec, where it is not at its defaults:")
    lines += [f"  {key}: {run_facts.format_value(value)}" for key, value in shown["spec"].items()]
    if shown["trials"] and not context.as_json:
        _print_trials(context, shown)
    context.emit(shown, [*lines, *_page_line(html)])


def _print_trials(context: CommandContext, run: Mapping[str, Any]) -> None:
    from trainer.report import run_facts

    keys = sorted({key for trial in run["trials"] for key in trial["values"]})
    rows = [
        [
            trial["trial"],
            *[run_facts.format_value(trial["values"].get(key)) for key in keys],
            trial["state"],
            trial["epochs"],
            f"{trial['seconds']:.1f}",
            trial["error"] or run_facts.format_metric(run["metric"], trial["metric"]),
        ]
        for trial in run["trials"]
    ]
    columns = ["trial", *[key.removeprefix("train.") for key in keys], "state", "epochs", "seconds", run["metric"]]
    context.console.table("Trials, the best first", columns, rows)


@runs_group.command("compare")
@RUNS
@HTML
@shared_options("storage")
def compare_command(context: CommandContext, runs: tuple[str, ...], html: str | None, storage: str | None) -> None:
    """Compare two or more runs.

    Prints metrics with the best marked by *, the keys of the spec that differ, and differences of the environment. The
    page also lays the curves over each other.
    """
    comparison = raymill.compare_runs(runs, storage=storage or raymill.STORAGE, html=html)
    if not context.as_json:
        _print_comparison(context, comparison)
    lines = [f"{number}: {run['run']}" for number, run in enumerate(comparison["runs"], 1)]
    context.emit(comparison, [*lines, *comparison["notes"], *_page_line(html)])


def _print_comparison(context: CommandContext, comparison: Mapping[str, Any]) -> None:
    from trainer.report import run_facts

    words = {True: "the same rows", False: "different rows", None: "rows unknown"}
    for part, metrics in comparison["metrics"].items():
        marked = {
            name: [
                run_facts.format_metric(name, value) + "*" * (index in entry["best"])
                for index, value in enumerate(entry["values"])
            ]
            for name, entry in metrics.items()
        }
        _print_side_by_side(context, f"Metrics on {part} ({words[comparison['rows'][part]['same']]})", marked)
    for title, key in (
        ("Spec: the keys that differ", "spec"),
        ("Environment: what differs", "environment"),
        ("Seconds by stage", "stages"),
    ):
        values = {name: list(map(run_facts.format_value, row)) for name, row in comparison[key].items()}
        _print_side_by_side(context, title, dict(list(values.items())[:_MAX_LINES]))
        if len(values) > _MAX_LINES:
            context.console.print(f"and {len(values) - _MAX_LINES} more; `--json` and `--html` have all")


def _print_side_by_side(context: CommandContext, title: str, values: Mapping[str, Sequence[str]]) -> None:
    from trainer.report.run_facts import runs_are_rows

    if not values:
        return
    numbers = range(1, 1 + len(next(iter(values.values()))))
    if runs_are_rows(len(numbers), len(values)):
        rows = [[str(number), *row] for number, row in zip(numbers, zip(*values.values(), strict=True), strict=True)]
        context.console.table(title, ["run", *values], rows)
    else:
        context.console.table(title, ["", *map(str, numbers)], [[name, *row] for name, row in values.items()])


@runs_group.command("remove")
@RUNS
@click.option("--older-than", type=float, metavar="DAYS", help="All runs whose files have not changed for so long.")
@click.option("--force", is_flag=True, help="Also runs of registered versions, which work without them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@shared_options("storage")
def remove_command(
    context: CommandContext,
    runs: tuple[str, ...],
    older_than: float | None,
    force: bool,
    yes: bool,
    dry_run: bool,
    storage: str | None,
) -> None:
    """Remove runs: RUN..., or all that are older than DAYS.

    Asks before it removes them. A running run is never removed. A registered version keeps working without its run, but
    the run's report, log and curves are lost, and it cannot be repeated.
    """
    from cluster.text import format_bytes

    def remove(*, dry_run: bool) -> dict[str, Any]:
        folder = storage or raymill.STORAGE
        return raymill.remove_runs(runs, older_than_days=older_than, storage=folder, force=force, dry_run=dry_run)

    if not (yes or dry_run):
        if context.as_json:
            raise click.UsageError("--json cannot ask: add --yes to remove the runs, or --dry-run to list them")
        preview = remove(dry_run=True)
        _print_removal(context, preview)
        question = f"Remove {_count_runs(preview)}, {format_bytes(preview['bytes'])}?"
        if not preview["removed"] or not _confirm(question):
            context.emit({}, ["nothing is removed"])
            return
    result = remove(dry_run=dry_run)
    if dry_run and not context.as_json:
        _print_removal(context, result)
    verb = "would free" if dry_run else "freed"
    context.emit(result, [f"{_count_runs(result)}: {verb} {format_bytes(result['bytes'])}"])


def _print_removal(context: CommandContext, preview: Mapping[str, Any]) -> None:
    from cluster.text import format_bytes

    rows = [[entry["run"], format_bytes(entry["bytes"])] for entry in preview["removed"]]
    if rows:
        context.console.table("Runs to remove", ["run", "size"], rows)
    for entry in preview["skipped"]:
        context.console.print(f"{entry['run']} stays: {entry['reason']}", style="yellow")


def _count_runs(result: Mapping[str, Any]) -> str:
    count = len(result["removed"])
    return f"{count} run{'' if count == 1 else 's'}"


def _confirm(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # no terminal, or Ctrl-C
        raise click.UsageError("nobody answered; add --yes to remove without a question") from None


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0]


def _page_line(html: str | None) -> list[str]:
    return [f"page: {expand_home(html).absolute()}"] if html else []
