"""The command `raymill chat`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from cluster.paths import expand_home
from raymill.cli.context import CommandContext
from raymill.cli.options import shared_options

if TYPE_CHECKING:
    from raymill.chat import ChatModel

_PROMPT = "> "
_HISTORY_LINES = 1000


@click.command("chat")
@click.argument("model")
@click.option("--model", "name", default="", help="With a URL: which model of the endpoint. Default: its first.")
@click.option("--key", default="", envvar="RAYMILL_API_KEY", help="With a URL: API key. Default: $RAYMILL_API_KEY.")
@click.option("--system", default="", help="First message, of the system.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True, help="0: always the same.")
@click.option("--max-tokens", type=click.IntRange(1), help="Most tokens of an answer. Default: all that fit.")
@shared_options("storage")
def chat_command(
    context: CommandContext,
    model: str,
    name: str,
    key: str,
    system: str,
    temperature: float,
    max_tokens: int | None,
    storage: str | None,
) -> None:
    """Chat with MODEL: a name, name@alias or name@7 of the registry, or the URL of an endpoint.

    Ctrl-C stops an answer, and /new starts a new chat. Ctrl-D or /exit ends.
    """
    import raymill
    from raymill.chat import open_chat

    opened = open_chat(model, storage=storage or raymill.STORAGE, key=key, name=name)
    try:
        context.console.print(f"{opened.name}: /new starts a new chat, Ctrl-C stops an answer, Ctrl-D ends")
        _chat(opened, system, temperature, max_tokens)
    finally:
        opened.close()


def _chat(model: ChatModel, system: str, temperature: float, max_tokens: int | None) -> None:
    """Read messages and write answers until the input ends."""
    start: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages = list(start)
    with _line_history():
        while (text := _read_message()) is not None:
            if text == "/new":
                messages = list(start)
                continue
            messages.append({"role": "user", "content": text})
            answer = _write_answer(model, messages, temperature, max_tokens)
            messages = [*messages, {"role": "assistant", "content": answer}] if answer else messages[:-1]


def _read_message() -> str | None:
    """Return the next message that is not empty; None at the end."""
    while True:
        try:
            text = input(_PROMPT if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            click.echo()
            continue
        if text == "/exit":
            return None
        if text:
            return text


def _write_answer(model: ChatModel, messages: list[dict[str, Any]], temperature: float, max_tokens: int | None) -> str:
    """Write an answer as it comes, and return it. Ctrl-C stops it: what has come by then counts."""
    answer = ""
    pieces = model.answer(messages, max_tokens, temperature)
    try:
        for piece in pieces:
            answer += piece
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        click.echo(" [stopped]", nl=False)
    finally:
        pieces.close()  # type: ignore[attr-defined]
    click.echo()
    return answer


@contextlib.contextmanager
def _line_history() -> Any:
    """Let the arrow keys find earlier messages while the block runs, those of earlier chats too."""
    try:
        import readline
    except ImportError:  # a Python without it
        yield
        return
    path = expand_home("~/.raymill_chat_history")
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        if sys.stdin.isatty():
            with contextlib.suppress(OSError):
                readline.write_history_file(path)
                path.chmod(0o600)
