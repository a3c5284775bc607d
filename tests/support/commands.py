"""Commands as a user types them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
# As in an activated environment: `python` and `ray` are the ones that run the tests.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


class CommandResult:
    """What a command printed and how it ended."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def run_raymill(*words: object, cwd: Path = ROOT, timeout_s: float = 500, **env: str) -> CommandResult:
    """Run `python -m raymill ...` to its end."""
    command = [sys.executable, "-m", "raymill", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=timeout_s)
    return CommandResult(done.returncode, done.stdout, done.stderr)


class RunningCommand:
    """A command that is still going; what it prints is collected."""

    def __init__(self, *words: object, cwd: Path = ROOT) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PATH": PATH}
        self.process = subprocess.Popen(
            [*([] if isinstance(words[0], Path) else [sys.executable]), *map(str, words)],
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
    def text(self) -> str:
        """All that was printed so far."""
        return "".join(self.lines)

    def wait_for(self, word: str, timeout_s: float = 240) -> str:
        """Return the first line that holds `word`; fails with all that was printed if it does not come in time."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for line in list(self.lines):
                if word in line:
                    return line
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.05)
        raise AssertionError(f"no line with {word!r}; exit {self.process.poll()}:\n{self.text}")

    def family(self) -> list[psutil.Process]:
        """Return all processes it started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def parts(self, name: str) -> list[psutil.Process]:
        """Return those of its processes whose name is `name`, or whose title begins so."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if process.name() == name or (process.cmdline() or [""])[0].startswith(name):
                    found.append(process)
        return found

    def interrupt(self) -> tuple[int, float]:
        """Send Ctrl-C; returns the exit code and the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=60)
        return code, time.monotonic() - started

    def end(self) -> None:
        """Stop it if a test left it running; by pid, it and its own only."""
        family = self.family()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=20)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=20)


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those of `processes` that still run (a zombie has ended; whoever inherited it collects it)."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
