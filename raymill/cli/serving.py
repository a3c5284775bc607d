"""Commands for endpoints: serve, optimize, deploy-config, rollout, keys."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.engine_table import engine_table
from raymill.cli.options import MODEL, shared_options

_ENGINE = click.option(
    "--engine",
    help="Engine that computes predictions; `auto` is the fastest one that keeps the metric. Default: the spec's.",
)
_KEYS_FILE = click.option(
    "--file", "path", type=click.Path(path_type=Path), required=True, help="File of the hashed keys."
)


@click.command("serve")
@click.argument("models", nargs=-1, required=True)
@click.option("--host", help="Address to listen on. Default: the spec's, 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on. Default: the spec's, 8000.")
@click.option("--replicas", type=click.IntRange(1), help="Copies of the model. Default: the spec's, 1.")
@_ENGINE
@click.option("--wait-for-engine", is_flag=True, help="Choose the engine first. Default: answer with the model itself "
              "until it is chosen.")  # fmt: skip
@click.option("--keys", type=click.Path(), help="File of API keys; see `raymill keys`.")
@click.option("--insecure", is_flag=True, default=None, help="Allow an address other than 127.0.0.1 without API keys.")
@shared_options("set", "storage", "address")
def serve_command(
    context: CommandContext,
    models: tuple[str, ...],
    overrides: tuple[str, ...],
    storage: str | None,
    address: str | None,
    keys: str | None,
    wait_for_engine: bool,
    **options: object,
) -> None:
    """Answer HTTP requests with MODELS until Ctrl-C.

    Each model is a name, name@alias or name@7. /predict uses the first model.
    """
    options |= {"keys": str(Path(keys).absolute()) if keys else None, "models": list(models[1:]) or None}
    with raymill.serve(
        models[0],
        storage=storage or raymill.STORAGE,
        address=address,
        wait_for_engine=wait_for_engine,
        console=context.console,
        overrides=overrides,
        **_without_defaults(options),
    ) as url:
        with contextlib.suppress(KeyboardInterrupt):
            context.emit({"url": url}, [f"listening on {url}"])
            raymill.wait_for_interrupt()
        context.console.print("stopping; the same command starts the endpoint again")


@click.command("optimize")
@MODEL
@_ENGINE
@click.option(
    "--cpus", "cpus_per_replica", type=click.FloatRange(1), help="CPU cores of a replica. Default: the spec's, 1."
)
@click.option("--max-drop", "max_metric_drop", type=click.FloatRange(0, 100),
              help="Percentage points that the metric may lose. Default: 0.3.")  # fmt: skip
@shared_options("set", "storage")
def optimize_command(
    context: CommandContext, model: str, overrides: tuple[str, ...], storage: str | None, **options: object
) -> None:
    """Choose the fastest engine that keeps MODEL's metric.

    Builds every engine that can serve the model, and times it on this machine.
    """
    result = raymill.optimize(
        model,
        storage=storage or raymill.STORAGE,
        console=context.console,
        overrides=overrides,
        **_without_defaults(options),
    )
    table = engine_table(result)
    context.console.table(f"Engines of {model}", table.columns, table.rows)
    context.emit(result, [f"engine: {result['engine']}", f"next:   raymill serve {model}"])


@click.command("deploy-config")
@MODEL
@click.option("--replicas", type=click.IntRange(1), help="Copies of the model. Default: the spec's, 1.")
@click.option("--node-variables", "as_variables", is_flag=True, help="Print instead the environment variables with which "
              "to start Ray on every node.")  # fmt: skip
@shared_options("set", "storage")
def deploy_config_command(
    context: CommandContext,
    model: str,
    overrides: tuple[str, ...],
    storage: str | None,
    *,
    as_variables: bool,
    **options: object,
) -> None:
    """Print the config of MODEL's endpoint for `serve deploy`."""
    make = raymill.node_variables if as_variables else raymill.deploy_config
    config = make(model, storage=storage or raymill.STORAGE, overrides=overrides, **_without_defaults(options))
    if not isinstance(config, str):
        context.emit({"variables": config}, [f"export {name}={shlex.quote(text)}" for name, text in config.items()])
        return
    context.emit({"config": config}, config.splitlines())


@click.command("rollout")
@MODEL
@click.option(
    "--address", help="Ray's dashboard on the head of the cluster with the endpoint, for example http://HEAD:8265."
)
@click.option("--within", "within_s", type=click.FloatRange(1), default=900, metavar="SECONDS",
              help="How long the new version may take to start. Default: 900.")  # fmt: skip
@shared_options("storage")
def rollout_command(
    context: CommandContext, model: str, address: str | None, within_s: float, storage: str | None
) -> None:
    """Make the endpoint on a cluster serve MODEL, replica by replica.

    If the new version does not start, the endpoint serves the version before, and an alias that MODEL names points back.
    """
    result = raymill.rollout(model, address=address, storage=storage or raymill.STORAGE, within_s=within_s)
    ref = f"{result['model']}@{result['version']}"
    line = f"{ref} is served, and no longer {result['before']}" if result["before"] else f"{ref} is served already"
    context.emit(result, [line])


def _without_defaults(options: dict[str, object]) -> dict[str, object]:
    """Return the options that were given on the command line."""
    return {key: value for key, value in options.items() if value is not None}


@click.group("keys")
def keys_group() -> None:
    """API keys of endpoints: add, remove."""


@keys_group.command("add")
@click.argument("name")
@_KEYS_FILE
@click.option("--rate", type=click.FloatRange(0.01), help="Requests per second that the key may send. Default: any.")
@click.option(
    "--tokens-per-minute",
    type=click.IntRange(1),
    help="Tokens of prompts and answers that the key may use in a minute, of models that write text. Default: any.",
)
@click.option("--tokens-per-day", type=click.IntRange(1), help="The same for a day.")
@click.option("--admin", is_flag=True, help="Let the key add and remove adapters of language models.")
@shared_options()
def keys_add(
    context: CommandContext, name: str, path: Path, rate: float | None, *, admin: bool, **quotas: int | None
) -> None:
    """Create the key NAME, print it once, and store its hash."""
    from serve.keys import add_key

    key = add_key(path, name, rate, quotas, admin=admin)
    context.emit({"name": name, "key": key}, [key])


@keys_group.command("remove")
@click.argument("name")
@_KEYS_FILE
@shared_options()
def keys_remove(context: CommandContext, name: str, path: Path) -> None:
    """Remove the key NAME. Endpoints that start after this reject it."""
    from serve.keys import remove_key

    remove_key(path, name)
    context.emit({"removed": name}, [f"{name} is removed"])
