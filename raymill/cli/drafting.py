"""The command that drafts a spec: init."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import shared_options

if TYPE_CHECKING:
    from trainer.draft.draft import SpecDraft


@click.command("init")
@click.argument("data", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", default="run.yaml", show_default=True, type=click.Path(), help="File to write.")
@click.option("--target", metavar="COLUMN", help="The column to predict. Default: a guess.")
@click.option("--task", metavar="TASK", help="The task; `raymill tasks` lists them. Default: a guess.")
@click.option("--base", metavar="MODEL", help="The base model: a hub id, a folder, or package://NAME/folder.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@shared_options("format")
def init_command(
    context: CommandContext,
    data: tuple[str, ...],
    output: str,
    target: str | None,
    task: str | None,
    base: str | None,
    force: bool,
    formats: tuple[str, ...],
) -> None:
    """Write a spec for DATA, with comments.

    DATA is a csv, tsv, jsonl, parquet or arrow file, several of them or a glob, or a folder: of such files, of images, or
    of texts, with a subfolder for each class. Files beside train.csv such as test.csv and validation.csv become the
    held-out rows.

    Looks at a sample of the rows, guesses the column to predict, the task, the kinds of columns, the split and the base
    model, checks the guess on the rows, and says what it assumed and what it is unsure of, here and in the file.
    """
    draft = raymill.init(data, output, target=target, task=task, base=base, format=formats, force=force)
    rows = [[column["name"], column["used_as"], column["about"]] for column in draft.columns]
    context.console.table(f"Columns of {' '.join(data)}", ["column", "used as", "what it holds"], rows)
    context.emit(_result(draft, output), _lines(draft, output))


def _result(draft: SpecDraft, output: str) -> dict[str, Any]:
    return {
        "spec": output,
        "task": draft.spec.task,
        "columns": draft.columns,
        "assumed": draft.assumed,
        "unsure": [doubt._asdict() for doubt in draft.unsure],
        "text": draft.text,
    }


def _lines(draft: SpecDraft, output: str) -> list[str]:
    lines = ["Assumed:", *(f"  - {sentence}" for sentence in draft.assumed)]
    if draft.unsure:
        lines += ["Unsure:", *(f"  - {doubt}" for doubt in draft.unsure)]
    return [*lines, f"spec:   {output}", f"next:   raymill run {output}"]
