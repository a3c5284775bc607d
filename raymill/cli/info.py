"""Commands about raymill itself: tasks, schema, doctor."""

from __future__ import annotations

import json

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import shared_options


@click.command("tasks")
@shared_options()
def tasks_command(context: CommandContext) -> None:
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
    context.emit({"tasks": found}, lines)


@click.command("schema")
def schema_command() -> None:
    """Print the spec's JSON Schema, for editors."""
    from trainer.spec.run import RunSpec

    click.echo(json.dumps(RunSpec.model_json_schema(), indent=2))


@click.command("doctor")
@shared_options("storage")
def doctor_command(context: CommandContext, storage: str | None) -> None:
    """Show versions, cores, GPUs, Ray and storage: what is there, what is missing and how to get it."""
    from cluster.doctor import Check, examine
    from trainer.tasks.catalog import TASKS

    found = [
        *examine(storage or raymill.STORAGE),
        Check("tasks", f"{len(TASKS)}; `raymill tasks` lists them", True, True, ""),
    ]
    rows = [
        [item.what, item.found, "ok" if item.ok else ("missing" if item.needed else "optional"), item.fix]
        for item in found
    ]
    context.console.table("raymill doctor", ["what", "found", "", "how to get it"], rows)
    bad = [item.what for item in found if item.needed and not item.ok]
    context.emit(
        {"ok": not bad, "checks": [item._asdict() for item in found]},
        ["all is there" if not bad else f"missing: {', '.join(bad)}"],
    )
    context.code = 2 if bad else 0
