"""The command `plan`: what a run needs, whether it fits, and what `auto` stands for."""

from __future__ import annotations

from typing import Any

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import SPEC, shared_options, with_address, with_storage


@click.command("plan")
@SPEC
@click.option("--explain", is_flag=True, help="Print each figure of memory and disk with its formula and values.")
@click.option(
    "--nodes",
    type=click.Path(),
    metavar="FILE",
    help="Plan for the nodes in this YAML file, for example of a cluster that is not there yet.",
)
@shared_options("set", "storage", "address")
def plan_command(
    context: CommandContext,
    spec: str,
    explain: bool,
    nodes: str | None,
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
) -> None:
    """Show which processes will run, whether they fit, and what `auto` stands for.

    Adds up their CPUs, GPUs and memory and compares them with those of the nodes.
    """
    plan = raymill.plan(spec, overrides=with_address(with_storage(overrides, storage), address), nodes=nodes)
    _print_stages(context, plan)
    if explain:
        _print_terms(context, plan)
    _print_choices(context, plan)
    context.emit(plan, _summary_lines(plan))


def _print_stages(context: CommandContext, plan: dict[str, Any]) -> None:
    columns = ["stage", "what", "processes", "CPU each", "GPU each", "memory each", "GPU memory each", "memory"]
    bounds = {name for name, estimate in plan["memory"].items() if estimate["is_upper_bound"]}
    rows = []
    for stage in plan["stages"]:
        key = "train" if stage["stage"] == "tune" else stage["stage"]
        on_gpu = "train on a GPU" in bounds and key == "train"
        rows.append(
            [
                *(stage[name] for name in ("stage", "what", "processes", "cpus_each", "gpus_each")),
                _size(stage["memory_each"], is_bound=key in bounds),
                _size(stage["gpu_memory_each"], is_bound=on_gpu),
                _size(stage["memory"], is_bound=key in bounds),
            ]
        )
    context.console.table("Plan", columns, rows)


def _print_terms(context: CommandContext, plan: dict[str, Any]) -> None:
    """Print the terms of each sum with their formulas."""
    from cluster.text import format_bytes

    for name, estimate in {**plan["memory"], "disk": plan["disk"]}.items():
        rows = [
            [format_bytes(term["bytes"]), term["name"], term["formula"], term["values"]] for term in estimate["terms"]
        ]
        if rows:
            title = "Disk" if name == "disk" else f"Memory of one process: {name}"
            rows.append([_size(estimate["bytes"], is_bound=estimate["is_upper_bound"]), "sum", estimate["unknown"], ""])
            context.console.table(title, ["size", "what", "formula", "values"], rows)


def _size(size: int, *, is_bound: bool) -> str:
    from cluster.text import format_bytes

    return f"{'up to ' if is_bound else ''}{format_bytes(size)}" if size else ""


def _summary_lines(plan: dict[str, Any]) -> list[str]:
    from cluster.text import format_bytes

    cpus, gpus, memory = (sum(node[kind] for node in plan["nodes"]) for kind in ("cpus", "gpus", "memory"))
    has = f"{cpus:g} CPU and {gpus:g} GPU" + (f" and {format_bytes(memory)} of memory" if memory else "")
    unknown = [f"{name}: {part['unknown']}" for name, part in plan["memory"].items() if part["unknown"]]
    disk = plan["disk"]
    return [
        *unknown,
        f"disk: {_size(disk['bytes'], is_bound=disk['is_upper_bound']) or '0 B'}",
        f"it fits; nodes: {len(plan['nodes'])}, with {has} in total",
    ]


def _print_choices(context: CommandContext, plan: dict[str, Any]) -> None:
    """Print the values of the keys that are `auto`, or why they are not known yet."""
    from trainer.defaults.facts import Choice
    from trainer.pipeline.messages import print_choices

    if plan["chosen"]:
        print_choices(context.console, {key: Choice(**choice) for key, choice in plan["chosen"].items()})
    if plan["not_chosen"]:
        context.console.detail(f"keys that are `auto` are chosen in the run: {plan['not_chosen']}")
