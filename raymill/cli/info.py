"""Commands about raymill itself: tasks, schema, doctor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import shared_options

if TYPE_CHECKING:
    from cluster.environment_checks import Check


@click.command("tasks")
@shared_options()
def tasks_command(context: CommandContext) -> None:
    """List the built-in tasks.

    Shows columns, models, requests, answers and metrics. A custom task is named in the spec: `task: my_module:MyTask`.
    """
    tasks = raymill.tasks()
    lines = []
    for task in tasks:
        columns = "".join(f"\n    {role:<10} {column}" for role, column in task["columns"].items())
        lines.append(
            f"{task['task']}\n  columns:{columns}\n  model.{task['model']}\n"
            f"  input of a request: {task['request']}\n  answer: {json.dumps(task['answer'])}\n"
            f"  metrics: {', '.join(task['metrics'])} (default: {task['metric']})\n"
        )
    context.emit({"tasks": tasks}, lines)


@click.command("schema")
def schema_command() -> None:
    """Print the spec's JSON Schema, for editors."""
    from trainer.spec.run import RunSpec

    click.echo(json.dumps(RunSpec.model_json_schema(), indent=2))


@click.command("doctor")
@shared_options("storage")
def doctor_command(context: CommandContext, storage: str | None) -> None:
    """Check the environment.

    Lists packages, cores, memory, GPUs, Ray, folders, limits, variables, the network, the clock and storage: what is
    missing or in the way, and what to do.
    """
    from cluster.doctor import run_checks
    from cluster.environment_checks import Check
    from trainer.tasks.catalog import TASKS

    checks = [
        *run_checks(storage or raymill.STORAGE),
        Check("tasks", f"{len(TASKS)}; `raymill tasks` lists them", True, True, ""),
    ]
    rows = [[check.name, check.result, _describe(check), check.fix] for check in checks]
    context.console.table("raymill doctor", ["what", "found", "", "how to get it"], rows)
    missing = [check.name for check in checks if check.needed and not check.ok]
    context.emit(
        {"ok": not missing, "checks": [check.as_dict() for check in checks]},
        [
            *[f"{check.name}: {check.result}; {check.fix}" for check in checks if _describe(check) == "look"],
            f"missing: {', '.join(missing)}" if missing else "everything required is installed",
        ],
    )
    context.exit_code = 2 if missing else 0


def _describe(check: Check) -> str:
    """Return one word about a check: `look` is for a machine that restricts what works, or makes it slower."""
    if check.ok:
        return "ok"
    if check.needed:
        return "missing"
    return "look" if check.is_condition else "optional"
