"""Commands for registered models: evaluate, predict, models, contract."""

from __future__ import annotations

from typing import Any

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import MODEL, OrderedGroup, shared_options


@click.command("evaluate")
@MODEL
@click.option("--data", type=click.Path(), help="Labeled csv, jsonl or parquet. Default: the held-out rows.")
@shared_options("format", "storage", "address")
def evaluate_command(
    context: CommandContext,
    model: str,
    data: str | None,
    formats: tuple[str, ...],
    storage: str | None,
    address: str | None,
) -> None:
    """Show a model's metrics on held-out or labeled rows.

    The rows are read from --data; by default, they are the held-out rows that the model was registered with.
    """
    from trainer.targets.metrics.summary import metrics_line

    result = raymill.evaluate(
        model,
        data=data,
        format=formats,
        storage=storage or raymill.STORAGE,
        address=address,
        console=context.console,
    )
    lines = [
        f"{result['model']}@{result['version']}  {metrics_line(result['metrics']['test'])}",
        f"report: {result['report']}",
    ]
    context.emit(result, lines)


@click.command("predict")
@MODEL
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="A .csv, .jsonl or .parquet file.")
@click.option("--max-tokens", type=int, help="Models that write text: the most tokens of an answer.  [default: 256]")
@click.option(
    "--temperature", type=float, help="Models that write text: 0 takes the most probable token.  [default: 0]"
)
@shared_options("format", "storage", "address")
def predict_command(
    context: CommandContext,
    model: str,
    inputs: tuple[str, ...],
    output: str | None,
    max_tokens: int | None,
    temperature: float | None,
    formats: tuple[str, ...],
    storage: str | None,
    address: str | None,
) -> None:
    """Write predictions for csv, jsonl or parquet files, or for folders of them, of texts or of images."""
    result = raymill.predict(
        model,
        list(inputs),
        output,
        format=formats,
        storage=storage or raymill.STORAGE,
        address=address,
        max_tokens=max_tokens,
        temperature=temperature,
        console=context.console,
    )
    unread = result["rows"] - result["predicted"]
    note = f" ({unread:,} could not be read; their `error` column says why)" if unread else ""
    lines = [f"{result['rows']:,} rows to {result['output']}{note}"]
    lines += [f"  {rows:,} x {reason}" for reason, rows in result["bad_rows"].items()]
    unseen = ", ".join(f"'{column}' (rows: {rows:,})" for column, rows in result["unseen_values"].items())
    if unseen:
        lines.append(f"Values unlike those of all training rows, taken for other or missing: {unseen}")
    context.emit(result, lines)


@click.group("models", cls=OrderedGroup, invoke_without_command=True)
@click.option("--storage", type=click.Path(), help="Folder of prepared data, runs and models.")
@click.pass_context
def models_group(click_context: click.Context, storage: str | None) -> None:
    """Registered models: list, show, promote, rollback.

    Without a subcommand, list them.
    """
    click_context.obj = storage
    if click_context.invoked_subcommand is None:
        CommandContext(as_json=False, verbose=False, debug=False).run(lambda context: _print_versions(context, storage))


def _print_versions(context: CommandContext, storage: str | None) -> None:
    from trainer.targets.metrics.summary import metrics_line

    storage = storage or raymill.STORAGE
    versions = raymill.models(storage=storage)
    rows = [
        [
            f"{version['model']}@{version['version']}",
            ", ".join(version["aliases"]),
            version.get("error") or metrics_line(version["metrics"]),
        ]
        for version in versions
    ]
    if rows and not context.as_json:
        context.console.table("Models", ["version", "aliases", "held-out rows"], rows)
        _print_earlier_metrics(context, versions)
    context.emit({"models": versions}, [f"versions in {storage}: {len(versions)}"])


def _print_earlier_metrics(context: CommandContext, versions: list[dict[str, Any]]) -> None:
    """Name the versions whose stored metrics mean something else than those of new versions."""
    from trainer.spec.evaluate import METRICS_VERSION

    earlier = [
        f"{version['model']}@{version['version']}"
        for version in versions
        if version["metrics"] and version["metrics"].get("metrics_version", 1) != METRICS_VERSION
    ]
    if earlier:
        context.console.print(
            f"an earlier raymill computed the metrics of {', '.join(earlier)}: its macro averages covered other classes",
            style="yellow",
        )


@models_group.command("list")
@shared_options("storage")
def list_command(context: CommandContext, storage: str | None) -> None:
    """List every version and its aliases."""
    _print_versions(context, storage or _group_storage())


@models_group.command("show")
@MODEL
@shared_options("storage")
def show_command(context: CommandContext, model: str, storage: str | None) -> None:
    """Show the metrics, lineage and aliases of a version."""
    from trainer.targets.metrics.summary import metrics_line

    version = raymill.show(model, storage=storage or _group_storage() or raymill.STORAGE)
    lines = [
        f"{version['model']}@{version['version']}  {', '.join(version['aliases'])}".rstrip(),
        f"folder: {version['folder']}",
    ]
    lines += [f"{part}: {metrics_line(metrics)}" for part, metrics in version["metrics"].items()]
    lines += [f"{key}: {value}" for key, value in version["lineage"].items()]
    for move in version["moves"]:
        evidence = move["evidence"]
        reason = ". ".join(evidence[name] for name in ("reason", "note") if evidence.get(name))
        lines.append(f"{move['at']} {move['kind']} {move['alias']}: {reason}")
    context.emit(version, lines)


@models_group.command("promote")
@MODEL
@click.option("--alias", default="champion", show_default=True, help="The alias to move.")
@shared_options("storage")
def promote_command(context: CommandContext, model: str, alias: str, storage: str | None) -> None:
    """Point an alias to this version, whatever the gate decided."""
    move = raymill.promote(model, alias=alias, storage=storage or _group_storage() or raymill.STORAGE)
    context.emit(move, [_describe_move(move)])


@models_group.command("rollback")
@MODEL
@click.option("--alias", default="champion", show_default=True, help="The alias to move back.")
@shared_options("storage")
def rollback_command(context: CommandContext, model: str, alias: str, storage: str | None) -> None:
    """Point an alias back to the version before its last promotion."""
    name, _, named_alias = model.partition("@")
    storage = storage or _group_storage() or raymill.STORAGE
    move = raymill.rollback(name, alias=named_alias or alias, storage=storage)
    context.emit(move, [_describe_move(move)])


def _describe_move(move: dict[str, object]) -> str:
    return f"{move['model']}@{move['alias']} is now {move['model']}@{move['version']}"


def _group_storage() -> str | None:
    """Return the value of --storage before the subcommand, as in `raymill models --storage DIR list`."""
    storage: str | None = click.get_current_context().obj
    return storage


@click.group("contract", cls=OrderedGroup)
def contract_group() -> None:
    """Contracts of models: show, diff.

    A contract holds the exact rules that turn a raw row into model inputs.
    """


@contract_group.command("show")
@MODEL
@shared_options("storage")
def contract_show_command(context: CommandContext, model: str, storage: str | None) -> None:
    """Show the contract of MODEL.

    MODEL is a name, name@alias, name@7, or a folder with a contract.json.
    """
    from trainer.contract.show import format_contract

    contract = raymill.contract_show(model, storage=storage or raymill.STORAGE)
    context.emit(contract, format_contract(contract))


@contract_group.command("diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@shared_options("storage")
def contract_diff_command(context: CommandContext, first: str, second: str, storage: str | None) -> None:
    """List the changes from contract A to contract B.

    Prints one line per changed field, or `same` if nothing changed.
    """
    from trainer.contract.diff import Change

    result = raymill.contract_diff(first, second, storage=storage or raymill.STORAGE)
    context.emit(result, [str(Change(**change)) for change in result["changes"]] or ["same"])
