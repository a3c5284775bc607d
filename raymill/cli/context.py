"""How a command runs: its result on stdout, its messages on stderr, its errors as exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click


class CommandContext:
    """One command's output: results on stdout, everything else on stderr, errors as exit codes."""

    def __init__(self, *, as_json: bool, verbose: bool, debug: bool) -> None:
        from cluster.console import Console
        from cluster.terminal import OwnOutput

        self.as_json, self.debug = as_json, debug
        self.code = 0
        self.own = OwnOutput(shows_rays_output=verbose)
        self.console = Console(sys.stderr, self.own)

    def emit(self, result: dict[str, Any], lines: list[str]) -> None:
        """Print the result on stdout: one JSON object with --json, else `lines`."""
        out = self.own.stdout
        print(json.dumps(result, ensure_ascii=False) if self.as_json else "\n".join(lines), file=out, flush=True)

    def run(self, work: Callable[[CommandContext], None]) -> None:
        """Run `work` and end the process with the exit code of `cluster.errors.OUTCOMES`."""
        signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            work(self)
        except KeyboardInterrupt:
            self.code = self._interrupted()
        except click.UsageError as error:
            error.show(self.own.stderr)
            self.code = error.exit_code
        except Exception as error:
            self.code = self._failed(error)
        # os._exit: threads that still wait for a stopped Ray must not keep the process alive.
        for stream in (self.own.stdout, self.own.stderr, sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.code)

    def _interrupted(self) -> int:
        from cluster.errors import outcome

        self.console.say(
            "\nInterrupted; every process that this command started is stopped. Prepared rows are kept and will be reused.",
            style="yellow",
        )
        if self.as_json:
            self.emit({"error": "interrupted"}, [])
        return outcome(KeyboardInterrupt()).exit_code

    def _failed(self, error: Exception) -> int:
        from cluster.errors import UserError, outcome

        if isinstance(error, UserError):
            self.console.say(f"error: {error}", style="red")
        else:
            text = str(error).strip() or "no message"
            self.console.say(f"raymill failed: {type(error).__name__}: {text.splitlines()[0]}", style="red")
            self.console.say(
                "  This is a bug in raymill, not in your input; --debug shows the traceback, --verbose Ray's output."
            )
        if self.debug:
            self.console.say("".join(traceback.format_exception(error)))
        if self.as_json:
            self.emit({"error": str(error)}, [])
        return outcome(error).exit_code


def _as_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt
