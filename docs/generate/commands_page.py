"""docs/reference/commands.md: every command with its arguments and options, from click."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import click

from docs.generate.markdown import code, generated_page, table
from raymill.cli.main import cli

_INTRODUCTION = """
`raymill COMMAND --help` prints the same in the terminal. `python -m raymill` is the same program.

- MODEL is a name (its champion), `name@alias` or `name@7`.
- SPEC is the path of a YAML file; RUN is a run's folder, or its name below `runs` in the storage folder.
- With `--json`, stdout holds one JSON object and nothing else. Messages and progress go to stderr in any case.
- Ray's own output goes to `ray.log` in the run's folder; `--verbose` shows it instead.
- [Exit codes](exit-codes.md) are 0, 1, 2 and 130.
"""

#: Options that most commands share; they are listed once.
_SHARED = ("as_json", "verbose", "debug")


def build_page() -> str:
    """Return the page."""
    commands = list(_commands(cli, ["raymill"]))
    overview = table(
        ["command", "what it does"],
        [[f"[`{' '.join(path)}`](#{_anchor(path)})", _summary(command)] for path, command in commands],
    )
    shared = next(command for _, command in commands if any(option.name == "as_json" for option in command.params))
    options = [option for option in shared.params if option.name in _SHARED]
    parts = [
        "## Overview\n\n" + overview,
        "## Options of every command\n\n" + _options(options, command=shared, path=[]),
        *(f"## {' '.join(path)}\n\n{_details(path, command)}" for path, command in commands),
    ]
    return generated_page("Commands", "raymill/cli/", _INTRODUCTION, *parts)


def _commands(group: click.Group, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    """Yield every command that does something, in the order of `--help`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        below = [*path, name]
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield below, command
        if isinstance(command, click.Group):
            yield from _commands(command, below)


def _anchor(path: list[str]) -> str:
    return "-".join(path)


def _summary(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0]


def _details(path: list[str], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(path))
    usage = f"```text\n{' '.join([' '.join(path), *command.collect_usage_pieces(context)])}\n```"
    text = inspect.cleandoc(command.help or "")
    own = [option for option in command.params if isinstance(option, click.Option) and option.name not in _SHARED]
    return "\n\n".join([text, usage, *([_options(own, command, path)] if own else [])])


def _options(options: Sequence[click.Parameter], command: click.Command, path: list[str]) -> str:
    context = click.Context(command, info_name=" ".join(path))
    rows = []
    for option in options:
        record = option.get_help_record(context)
        if record is not None:
            rows.append([code(record[0]), record[1]])
    return table(["option", "meaning"], rows)
