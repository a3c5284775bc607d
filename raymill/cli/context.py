"""Run a command: print its result on stdout and its messages on stderr, and turn an error into an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click


class CommandContext:
    """The output of one command: its result on stdout, everything else on stderr, and its exit code."""

    def __init__(self, *, as_json: bool, verbose: bool, debug: bool) -> None:
        from cluster.console import Console
        from cluster.terminal import OutputRedirect

        self.as_json, self.shows_traceback = as_json, debug
        self.exit_code = 0
        self.output = OutputRedirect(shows_ray_output=verbose)
        self.console = Console(sys.stderr, self.output)

    def emit(self, result: dict[str, Any], lines: list[str]) -> None:
        """Print the result on stdout: one JSON object with --json, else `lines`."""
        from cluster.encoding import to_json

        text = to_json(result, self.output.stdout) if self.as_json else "\n".join(lines)
        print(text, file=self.output.stdout, flush=True)

    def run(self, work: Callable[[CommandContext], None]) -> None:
        """Run `work` and end the process. An error sets the exit code, as `cluster.errors.OUTCOMES` lists it."""
        from cluster.process_setup import working_directory

        signal.signal(signal.SIGTERM, _raise_interrupt)
        try:
            working_directory()
            work(self)
        except KeyboardInterrupt:
            self.exit_code = self._report_interrupt()
        except click.UsageError as error:
            error.show(self.output.stderr)
            self.exit_code = error.exit_code
        except Exception as error:
            self.exit_code = self._report_error(error)
        # Use os._exit, because threads that still wait for a stopped Ray would keep the process alive.
        for stream in (self.output.stdout, self.output.stderr, sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.exit_code)

    def _report_interrupt(self) -> int:
        from cluster.errors import classify_error

        self.console.print(
            "\nInterrupted. Every process that this command started has stopped. Prepared rows are kept and reused.",
            style="yellow",
        )
        if self.as_json:
            self.emit({"error": "interrupted"}, [])
        return classify_error(KeyboardInterrupt()).exit_code

    def _report_error(self, error: Exception) -> int:
        from cluster.errors import UserError, classify_error

        if isinstance(error, UserError):
            self.console.print(f"error: {error}", style="red")
        else:
            text = str(error).strip() or "no message"
            self.console.print(f"raymill failed: {type(error).__name__}: {text.splitlines()[0]}", style="red")
            self.console.print(
                "  This is a bug in raymill, not in your input. "
                "`--debug` shows the traceback, and `--verbose` shows Ray's output."
            )
        if self.shows_traceback:
            self.console.print("".join(traceback.format_exception(error)))
        if self.as_json:
            self.emit({"error": str(error)}, [])
        return classify_error(error).exit_code


def _raise_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt
