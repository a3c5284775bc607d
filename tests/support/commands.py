"""Run commands as a user types them: to their end, or in the background."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
# As in an activated environment: `python` and `ray` are those that run the tests.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


class CommandResult:
    """The exit code and the output of a command."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def run_raymill(*arguments: object, cwd: Path = ROOT, timeout_s: float = 500, **env: str) -> CommandResult:
    """Run `python -m raymill ...` to its end; `env` adds environment variables.

    Without another folder or environment, the process is a fork of one that has the slow imports: see `CommandServer`.
    """
    if cwd == ROOT and not env and (server := _command_server()) is not None:
        return server.run(list(map(str, arguments)), timeout_s)
    command = [sys.executable, "-m", "raymill", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=timeout_s)
    return CommandResult(done.returncode, done.stdout, done.stderr)


class CommandServer:
    """The process of `command_server.py`, which ends after this one."""

    def __init__(self) -> None:
        self.environment = _environment()
        self._folder = Path(tempfile.mkdtemp(prefix="raymill-commands-"))
        self._path = str(self._folder / "socket")
        program = Path(__file__).with_name("command_server.py")
        self._process = subprocess.Popen(
            [sys.executable, program, self._path], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL
        )
        atexit.register(self._stop)

    def run(self, arguments: list[str], timeout_s: float) -> CommandResult:
        """Run `raymill ARGUMENTS` to its end. Raises `subprocess.TimeoutExpired` after it was killed."""
        files = {}
        for name in ("stdout", "stderr"):
            descriptor, files[name] = tempfile.mkstemp(prefix=name, dir=self._folder)
            os.close(descriptor)
        environment = _environment()
        with self._connect() as connection, connection.makefile("r", encoding="utf-8") as replies:
            connection.sendall(
                f"{json.dumps({'arguments': arguments, 'environment': environment, **files})}\n".encode()
            )
            pid = int(replies.readline())
            connection.settimeout(timeout_s)
            try:
                code = int(replies.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout_s) from None
        return CommandResult(code, *(Path(files[name]).read_text(encoding="utf-8") for name in ("stdout", "stderr")))

    def _connect(self) -> socket.socket:
        """Return a connection to the server, which answers it when its imports are done."""
        deadline = time.monotonic() + 120
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._path)
                return connection
            except OSError:
                connection.close()
                assert self._process.poll() is None and time.monotonic() < deadline, "the command server does not start"
                time.sleep(0.02)

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Return the variables that commands get: those of this process without what pytest and torch set in it."""
    own = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}
    return {name: value for name, value in os.environ.items() if name not in own} | {"PYTHONPATH": str(ROOT)}


@functools.cache
def _started_server() -> CommandServer:
    return CommandServer()


def _command_server() -> CommandServer | None:
    """Return this process's command server; None if the environment has changed, which its modules may have read."""
    if not hasattr(os, "pidfd_open"):  # Linux only
        return None
    server = _started_server()
    return server if server.environment == _environment() else None


class RunningCommand:
    """A command in the background; its output is collected."""

    def __init__(self, *arguments: object, cwd: Path = ROOT) -> None:
        """Start `python ARGUMENTS`, or the program that the first argument is the `Path` of."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PATH": PATH}
        self.process = subprocess.Popen(
            [*([] if isinstance(arguments[0], Path) else [sys.executable]), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            env=environment,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def output(self) -> str:
        """Everything printed so far, stdout and stderr together."""
        return "".join(self.lines)

    def wait_for_output(self) -> None:
        """Wait until everything that the ended command printed is in `lines`."""
        self._reader.join(20)

    def wait_for_line(self, word: str, timeout_s: float = 240) -> str:
        """Return the first line that contains `word`. Fails if the command ends or the time is up before it comes."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if word in line:
                    return line
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.05)
        raise AssertionError(f"no line with {word!r}; exit {self.process.poll()}:\n{self.output}")

    def wait_until(self, condition: Callable[[], T], what: str = "", timeout_s: float = 240) -> T:
        """Return the value of `condition` once it is true. Fails if the command ends or the time is up before that."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            is_alive = self.process.poll() is None
            assert is_alive and time.monotonic() < deadline, f"waited for: {what}\n{self.output}"
            time.sleep(0.05)
        return value

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that it started, and theirs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def processes(self, name: str) -> list[psutil.Process]:
        """Return its descendants with this name, or with a title that starts with it."""
        matching = []
        for process in self.descendants():
            with contextlib.suppress(psutil.Error):
                if process.name() == name or (process.cmdline() or [""])[0].startswith(name):
                    matching.append(process)
        return matching

    def interrupt(self) -> tuple[int, float]:
        """Send Ctrl-C; return the exit code and the seconds until the command ended."""
        started = time.monotonic()
        self.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=60)
        return code, time.monotonic() - started

    def send_signal(self, number: int) -> None:
        """Send a signal to the command."""
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Stop the command if it still runs, then kill its descendants, by pid; processes of others are not touched."""
        descendants = self.descendants()
        if self.process.poll() is None:
            self.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=20)
        for process in descendants:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=20)


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those of `processes` that still run. A zombie has ended; its parent has not collected it yet."""
    running = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running
