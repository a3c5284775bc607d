"""Options and arguments that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from raymill.cli.context import CommandContext

Command = Callable[..., Any]

SPEC = click.argument("spec", type=click.Path())
SPEC_OR_RUN = click.argument("spec", required=False, type=click.Path())
RESUME = click.option("--resume", metavar="RUN", help="Resume an interrupted run: its folder or its name.")
MODEL = click.argument("model")


class InOrder(click.Group):
    """Lists commands in the order they are added, which is the order people use them in."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def shared_options(*names: str) -> Callable[[Command], Command]:
    """Add the options that many commands share; --json, --verbose and --debug become one `CommandContext`, the command's first argument."""
    known = {
        "set": click.option(
            "--set", "overrides", multiple=True, metavar="a.b=VALUE", help="Override one key of the spec."
        ),
        "storage": click.option("--storage", type=click.Path(), help="Folder of prepared data, runs and models."),
        "address": click.option("--address", help="Ray to use: auto, host:port or ray://host:port."),
        "json": click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else."),
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
            wrapped = known[name](wrapped)
        return wrapped

    return add


def with_storage(overrides: tuple[str, ...], storage: str | None) -> list[str]:
    """Add `--storage` to the overrides: relative to the working directory, where the spec's key is relative to its file."""
    return [*overrides, *([f"storage={json.dumps(str(Path(storage).expanduser().absolute()))}"] if storage else [])]
