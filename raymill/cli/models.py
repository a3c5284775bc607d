"""Commands on registered models: evaluate, predict, models, contract."""

from __future__ import annotations

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import MODEL, InOrder, shared_options


@click.command("evaluate")
@MODEL
@click.option("--data", type=click.Path(), help="Labeled csv, jsonl or parquet. Default: the held-out rows.")
@shared_options("storage", "address")
def evaluate_command(
    context: CommandContext, model: str, data: str | None, storage: str | None, address: str | None
) -> None:
    """Show a registered model's metrics on its held-out rows or on a labeled file."""
    from trainer.targets.metrics.summary import figures_line

    result = raymill.evaluate(
        model, data=data, storage=storage or raymill.STORAGE, address=address, console=context.console
    )
    lines = [
        f"{result['model']}@{result['version']}  {figures_line(result['metrics']['test'])}",
        f"report: {result['report']}",
    ]
    context.emit(result, lines)


@click.command("predict")
@MODEL
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="A .csv, .jsonl or .parquet file.")
@shared_options("storage", "address")
def predict_command(
    context: CommandContext,
    model: str,
    inputs: tuple[str, ...],
    output: str | None,
    storage: str | None,
    address: str | None,
) -> None:
    """Write predictions for csv, jsonl or parquet files."""
    result = raymill.predict(
        model, list(inputs), output, storage=storage or raymill.STORAGE, address=address, console=context.console
    )
    unread = result["rows"] - result["predicted"]
    note = f" ({unread:,} could not be read; their `error` column says why)" if unread else ""
    context.emit(result, [f"{result['rows']:,} rows to {result['output']}{note}"])


@click.group("models", cls=InOrder, invoke_without_command=True)
@click.option("--storage", type=click.Path(), help="Folder of prepared data, runs and models.")
@click.pass_context
def models_group(click_context: click.Context, storage: str | None) -> None:
    """The registry: list (the default), show, promote, rollback."""
    click_context.obj = storage
    if click_context.invoked_subcommand is None:
        CommandContext(as_json=False, verbose=False, debug=False).run(lambda context: _list(context, storage))


def _list(context: CommandContext, storage: str | None) -> None:
    from trainer.targets.metrics.summary import figures_line

    where = storage or raymill.STORAGE
    listed = raymill.models(storage=where)
    rows = [
        [f"{m['model']}@{m['version']}", ", ".join(m["aliases"]), m.get("error") or figures_line(m["metrics"])]
        for m in listed
    ]
    if rows and not context.as_json:
        context.console.table("Models", ["version", "aliases", "held-out rows"], rows)
    context.emit({"models": listed}, [f"{len(listed)} version(s) in {where}"])


@models_group.command("list")
@shared_options("storage")
def list_command(context: CommandContext, storage: str | None) -> None:
    """List every version and its aliases."""
    _list(context, storage or _group_storage())


@models_group.command("show")
@MODEL
@shared_options("storage")
def show_command(context: CommandContext, model: str, storage: str | None) -> None:
    """Show one version: metrics, lineage, files, moves of its aliases."""
    from trainer.targets.metrics.summary import figures_line

    shown = raymill.show(model, storage=storage or _group_storage() or raymill.STORAGE)
    lines = [f"{shown['model']}@{shown['version']}  {', '.join(shown['aliases'])}".rstrip()]
    lines += [f"folder: {shown['folder']}"]
    lines += [f"{part}: {figures_line(metrics)}" for part, metrics in shown["metrics"].items()]
    lines += [f"{key}: {value}" for key, value in shown["lineage"].items()]
    lines += [
        f"{move['at']} {move['kind']} {move['alias']}: {move['evidence'].get('reason', '')}" for move in shown["moves"]
    ]
    context.emit(shown, lines)


@models_group.command("promote")
@MODEL
@click.option("--alias", default="champion", show_default=True, help="The alias to move.")
@shared_options("storage")
def promote_command(context: CommandContext, model: str, alias: str, storage: str | None) -> None:
    """Point an alias to this version, whatever the gate decided."""
    moved = raymill.promote(model, alias=alias, storage=storage or _group_storage() or raymill.STORAGE)
    context.emit(moved, [_moved(moved)])


@models_group.command("rollback")
@MODEL
@click.option("--alias", default="champion", show_default=True, help="The alias to move back.")
@shared_options("storage")
def rollback_command(context: CommandContext, model: str, alias: str, storage: str | None) -> None:
    """Point an alias back to the version before its last promotion."""
    name, _, after_at = model.partition("@")
    where = storage or _group_storage() or raymill.STORAGE
    moved = raymill.rollback(name, alias=after_at or alias, storage=where)
    context.emit(moved, [_moved(moved)])


def _moved(move: dict[str, object]) -> str:
    return f"{move['model']}@{move['alias']} is now {move['model']}@{move['version']}"


def _group_storage() -> str | None:
    """Return --storage as given before the subcommand: `raymill models --storage DIR list`."""
    storage: str | None = click.get_current_context().obj
    return storage


@click.group("contract", cls=InOrder)
def contract_group() -> None:
    """How a model's rows become its inputs: show, diff."""


@contract_group.command("show")
@MODEL
@shared_options("storage")
def contract_show_command(context: CommandContext, model: str, storage: str | None) -> None:
    """Show the contract of MODEL: name, name@alias, name@7, or a folder with a contract.json."""
    from trainer.contract.show import lines

    shown = raymill.contract_show(model, storage=storage or raymill.STORAGE)
    context.emit(shown, lines(shown))


@contract_group.command("diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@shared_options("storage")
def contract_diff_command(context: CommandContext, first: str, second: str, storage: str | None) -> None:
    """List what changed from contract A to contract B, field by field; `same` if nothing did."""
    from trainer.contract.diff import Change

    result = raymill.contract_diff(first, second, storage=storage or raymill.STORAGE)
    context.emit(result, [str(Change(**change)) for change in result["changes"]] or ["same"])
