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
@click.option("--within", "within_s", type=click.FloatRange(min=1), help="Seconds a node may take. Default: 30.")
@click.option(
    "--address", help="Check all nodes of a cluster: auto, host:port, ray://host:port, or the dashboard's URL."
)
@shared_options("storage")
def doctor_command(context: CommandContext, storage: str | None, address: str | None, within_s: float | None) -> None:
    """Check the environment, or all nodes of a cluster.

    Lists packages, cores, memory, GPUs, Ray, folders, limits, variables, the network, the clock and storage: what is
    missing or in the way, and what to do. With --address, it asks every node of that Ray cluster, and compares them.
    """
    if address:
        _check_cluster(context, storage or raymill.STORAGE, address, within_s)
        return
    from raymill.health_checks import machine_checks

    checks = machine_checks(storage or raymill.STORAGE)
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


def _check_cluster(context: CommandContext, storage: str, address: str, within_s: float | None) -> None:
    from cluster.node_checks.doctor import report_as_dict
    from raymill.health_checks import ANSWER_WITHIN_S, cluster_report

    report = cluster_report(address, storage, within_s or ANSWER_WITHIN_S)
    words = {check: "ok" if check.ok else "wrong" if check.needed else "look" for check in report.checks}
    rows = [[check.name, check.result, words[check], check.fix] for check in report.checks]
    context.console.table(f"raymill doctor, {address}", ["what", "found", "", "what to do"], rows)
    result = report_as_dict(report)
    wrong = [check for check in report.checks if words[check] == "wrong"]
    context.emit(
        result,
        [
            *[f"{check.name}: {check.result}; {check.fix}" for check in report.checks if words[check] != "ok"],
            f"wrong: {', '.join(check.name for check in wrong)}" if wrong else "nothing is wrong",
        ],
    )
    context.exit_code = 0 if result["ok"] else 2


def _describe(check: Check) -> str:
    """Return one word about a check: `look` is for a machine that restricts what works, or makes it slower."""
    if check.ok:
        return "ok"
    if check.needed:
        return "missing"
    return "look" if check.is_condition else "optional"
