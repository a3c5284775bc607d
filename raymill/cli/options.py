"""Options and arguments that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import click

from cluster.paths import expand_home
from raymill.cli.context import CommandContext

Command = Callable[..., Any]

SPEC = click.argument("spec", type=click.Path())
SPEC_OR_RUN = click.argument("spec", required=False, type=click.Path())
RESUME = click.option(
    "--resume", metavar="RUN", help="Resume an interrupted run: its name, the beginning of it, its folder, or `last`."
)
MODEL = click.argument("model")


class OrderedGroup(click.Group):
    """A group that lists its commands in the order in which they were added, which is the order of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class DefaultGroup(OrderedGroup):
    """A group whose first command runs if no command is named: `raymill runs --json` is `raymill runs list --json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = args[0] if args else ""
        if named not in ctx.help_option_names and (not named or named.startswith("-")):
            args = [self.list_commands(ctx)[0], *args]
        return super().parse_args(ctx, args)


def shared_options(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options in `names`, and --json, --verbose and --debug.

    The command gets a `CommandContext`, built from the last three options, as its first argument.
    """
    options_by_name = {
        "set": click.option(
            "--set", "overrides", multiple=True, metavar="a.b=VALUE", help="Override one key of the spec."
        ),
        "storage": click.option("--storage", type=click.Path(), help="Folder of prepared data, runs and models."),
        "address": click.option(
            "--address", help="Address of the Ray cluster to join: auto, host:port or ray://host:port."
        ),
        "format": click.option(
            "--format",
            "formats",
            multiple=True,
            metavar="KEY=VALUE",
            help="How the files are read: a kind such as csv, or a key of `data.format`, such as encoding=cp1252.",
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="Print only one JSON object on stdout."),
        "verbose": click.option("--verbose", is_flag=True, help="Show Ray's own output instead of logging it."),
        "debug": click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    }

    def add(command: Command) -> Command:
        def with_context(*, as_json: bool, verbose: bool, debug: bool, **options: Any) -> None:
            context = CommandContext(as_json=as_json, verbose=verbose, debug=debug)
            context.run(lambda context: command(context, **options))

        with_context.__doc__ = command.__doc__
        wrapped: Command = with_context
        for name in reversed([*names, "json", "verbose", "debug"]):
            wrapped = options_by_name[name](wrapped)
        return wrapped

    return add


def with_storage(overrides: tuple[str, ...], storage: str | None) -> list[str]:
    """Return the overrides, with `--storage` added as an absolute path.

    `--storage` is relative to the working directory, but the key `storage` is relative to the spec's file.
    """
    if not storage:
        return list(overrides)
    return [*overrides, f"storage={json.dumps(str(expand_home(storage).absolute()))}"]


def with_address(overrides: Iterable[str], address: str | None) -> list[str]:
    """Return the overrides, with `--address` added as the key `cluster.address`."""
    return [*overrides, *([f"cluster.address={json.dumps(address)}"] if address else [])]
