"""Run the commands of a page in order, as a reader would, and compare what they print with the page.

    python -m docs.generate.replay docs/tutorial/first-model.md     # write what the commands print into the page

Two kinds of blocks count. A block with a title, such as `yaml title="run.yaml"`, is a file: it is written, or compared if
a command has already written it. A block of `console` holds commands after `$ ` and their output. A line `...` stands for
any lines. A command that serves runs until the page ends; the page shows port 8000, and a free port is used.

Figures that differ from run to run are not compared: decimals, seconds, run names, digests. `masked` says which.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from cluster.ports import free_port

_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = "127.0.0.1:8000"
_HOME = "/home/you"
_DEADLINE_S = 600
_EXAMPLES = Path(__file__).parents[2] / "examples"
# Lines that show progress in a log: how many there are depends on the speed of the machine.
_PROGRESS = re.compile(r"^ {2}\w+ +(starting|waiting|epoch|\d+ ?%).*\n", re.MULTILINE)
_RUN = re.compile(r"\w+-run-\d{8}-\d{6}-[0-9a-f]{6}")
_MASKS = (
    (re.compile(r"-\d{8}-\d{6}-[0-9a-f]+"), "-TIME-ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "DIGEST"),
    (re.compile(r"-?\d+\.\d+(e-?\d+)?"), "N"),
    (re.compile(r"\b\d+ s\b"), "N s"),
    (re.compile(r" +│"), " │"),
    (re.compile(r"(?<=│ )\d[\d,]*(?=\*? │)"), "N"),  # a cell of a table
    (re.compile(r"\b\d+e-\d+\b"), "N"),
    (re.compile(r" {2,}"), "  "),
    (re.compile(r"[━─]+"), "─"),  # as wide as the figures in the column
)


class Replay:
    """A page that is being run. Use it in a `with` statement, which stops what still serves."""

    def __init__(self, page: Path, home: Path) -> None:
        """`home` is an empty folder, the reader's home. The working directory is in it, with a copy of `examples`."""
        self.page, self._home = page, home
        self._folder = home / "work"
        shutil.copytree(_EXAMPLES, self._folder / "examples", ignore=shutil.ignore_patterns("data", "images"))
        self._port = free_port()
        self._serving: list[subprocess.Popen[bytes]] = []
        self._runs: dict[str, str] = {}  # a run's name on the page -> its real name
        self.differences: list[str] = []

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._serving:
            process.send_signal(signal.SIGINT)
        for process in self._serving:
            process.wait(timeout=120)

    def run(self) -> str:
        """Run every block. Return the page with the real output; `differences` lists where it was not as shown."""
        return _BLOCK.sub(self._run_block, self.page.read_text(encoding="utf-8"))

    def _run_block(self, match: re.Match[str]) -> str:
        language, title, text = match.groups()
        if title:
            path = self._folder / title
            if path.exists():
                self._compare(f"the file {title}", text, path.read_text(encoding="utf-8"))
                text = path.read_text(encoding="utf-8")
            else:
                path.write_text(text, encoding="utf-8")
            return f'```{language} title="{title}"\n{text}```'
        if language != "console":
            return match[0]
        parts = []
        for command, shown in console_commands(text):
            output = self._run(command)
            self._runs |= dict(zip(_RUN.findall(shown), _RUN.findall(output), strict=False))
            self._compare(command, shown, output)
            for name, real_name in self._runs.items():
                command = command.replace(name, real_name)
            parts.append(f"$ {command}\n{output if '...' not in shown.splitlines() else shown}")
        return f"```console\n{''.join(parts)}```"

    def _run(self, command: str) -> str:
        """Return what a command prints, with the reader's home and port 8000."""
        serves = command.startswith("raymill serve") or "--serve" in command.split()
        real = command.replace(_PORT, f"127.0.0.1:{self._port}")
        for name, real_name in self._runs.items():
            real = real.replace(name, real_name)
        if serves:
            real = f"exec {real} --set serve.port={self._port}"
        environment = {
            "OMP_WAIT_POLICY": "passive",  # threads that wait do not take the cores of others
            **os.environ,
            "HOME": str(self._home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "110",
        }
        log = Path(tempfile.mkstemp(dir=self._home, prefix=".output-")[1])
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", real], cwd=self._folder, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        if serves:
            self._serving.append(process)
        deadline = time.monotonic() + _DEADLINE_S
        while process.poll() is None and not (serves and "listening on" in log.read_text(encoding="utf-8")):
            if time.monotonic() > deadline:
                process.kill()
                raise TimeoutError(f"{command} did not end in {_DEADLINE_S} s:\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.05)
        output = log.read_text(encoding="utf-8")
        output = output.replace(str(self._home), _HOME).replace(f"127.0.0.1:{self._port}", _PORT)
        if process.returncode:
            self.differences.append(f"{command}: exit code {process.returncode}\n{output}")
        if output and not output.endswith("\n"):
            output += "\n"
        return _PROGRESS.sub("", output)

    def _compare(self, what: str, shown: str, real: str) -> None:
        pattern = "".join(
            "(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in masked(shown).splitlines()
        )
        if not re.fullmatch(pattern, masked(real)):
            lines = difflib.unified_diff(
                masked(shown).splitlines(), masked(real).splitlines(), "the page", "the command", lineterm=""
            )
            self.differences.append("\n".join([what, *lines]))


def masked(text: str) -> str:
    """Return text without what differs from run to run."""
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


def console_commands(text: str) -> list[tuple[str, str]]:
    """Return the commands of a block, each with the output that the page shows."""
    commands: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        end = next(end for end in range(1, len(lines) + 1) if _is_complete("".join(lines[:end])))
        commands.append(("".join(lines[:end]).rstrip("\n"), "".join(lines[end:])))
    return commands


def _is_complete(command: str) -> bool:
    """Return whether a command ends here: no quote is open and no backslash continues the line."""
    try:
        shlex.split(command)
    except ValueError:
        return False
    return not command.rstrip("\n").endswith("\\")


def main(page: Path) -> None:
    """Write what the commands of a page print into the page."""
    home = Path(tempfile.mkdtemp(prefix="replay-"))
    try:
        with Replay(page, home / "home") as replay:
            text = replay.run()
        page.write_text(text, encoding="utf-8")
        print(json.dumps({"page": str(page), "differences": replay.differences}, indent=2))
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
