"""Run a function in a Python process of its own, which ends with this process.

The child is a new interpreter, not a fork: it shares no locks and no memory with this process, and it imports only what
it needs. It finds the same modules, because it gets this process's import path.

Parent and child talk in lines of JSON. The parent writes to the child's standard input: first what to run, later
messages. When this input ends, the parent has ended, even by kill -9, and the child ends at once. The child writes its
messages to a pipe of its own. Its standard output and error are those of the parent.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cluster import import_guard

# Run by the child. It imports this module from raymill's own folder, whatever else is called `cluster`. It reads its
# input without Python's buffers: a thread that waits for input would hold their lock when the process ends.
_START = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # not the working directory: it may have a json.py
import json, os
text = b""
while len(text) < int(sys.argv[2]):
    text += os.read(0, int(sys.argv[2]) - len(text)) or os._exit(1)
start = json.loads(text)
sys.path[:] = [start["root"], *start["path"]]
from cluster.python_child import run_child
sys.path.remove(start["root"])
run_child(start)
"""

_READ_BYTES = 65536

Message = dict[str, Any]


class PythonChild:
    """A running child."""

    def __init__(
        self,
        entry: str,
        argument: Any,
        *,
        title: str,
        threads: int = 1,
        niceness: int = 0,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Run the function `entry` (`module:name`) with `argument`, which must be JSON, and a `Channel`.

        `title` appears in the process's command line. Libraries compute with `threads` threads, unless the user has set
        OMP_NUM_THREADS. `niceness` lowers the child's priority. The child inherits the file `descriptors` under the
        same numbers.
        """
        reading, writing = os.pipe()
        folders = import_guard.user_folders()
        start = {
            "root": str(import_guard.ROOT),
            "path": sys.path,
            "entry": entry,
            "argument": argument,
            "user_folders": folders,
            "hidden_names": import_guard.hidden_names(folders),
        }
        text = json.dumps({**start, "writing": writing, "niceness": niceness}).encode()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, title, str(len(text))],
                stdin=subprocess.PIPE,
                # As in a Ray worker. torch's own setting holds for one thread only, and a batcher has its own.
                env={"OMP_NUM_THREADS": str(threads), **os.environ},
                pass_fds=[*descriptors, writing],
                start_new_session=True,  # Ctrl-C reaches the parent only, which then tells the child to stop
            )
        finally:
            os.close(writing)
        self._messages = os.fdopen(reading, encoding="utf-8")
        self._write(text)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send a message to the child. Does nothing if the child has ended."""
        self._write(json.dumps(message).encode() + b"\n")

    def _write(self, content: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(content)
            self._process.stdin.flush()

    def messages(self) -> Iterator[Message]:
        """Yield the child's messages until it ends."""
        with self._messages:
            for line in self._messages:
                with contextlib.suppress(ValueError):  # the last line is cut short if the child was killed
                    yield json.loads(line)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit code, which is negative for a signal; None if the child still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End the child at once."""
        self._process.kill()
        self._process.wait()


class Channel:
    """The child's side: sends messages to the parent and receives its messages."""

    def __init__(self, writing: int) -> None:
        os.set_inheritable(writing, False)  # the pipe must close when this process ends, whatever it started
        self._messages: IO[str] = os.fdopen(writing, "w", buffering=1, encoding="utf-8")
        self._lock = threading.Lock()
        self.on_message: Callable[[Message], None] = lambda message: None
        """Called in a thread with each message of the parent's."""

    def send(self, message: Message) -> None:
        """Send a message to the parent."""
        with self._lock, contextlib.suppress(OSError):
            self._messages.write(json.dumps(message) + "\n")

    def listen(self) -> None:
        """Receive the parent's messages until it ends, then end this process."""
        text = b""
        while more := os.read(0, _READ_BYTES):
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                self.on_message(json.loads(line))
        os._exit(1)


def _lower_priority(niceness: int) -> None:
    os.nice(niceness)
    # Linux may share the CPU between sessions first, and compares niceness only within one. This child is a session.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness), encoding="ascii")


def run_child(start: Message) -> None:
    """Run the entry function that the parent asked for. Called in the child."""
    import_guard.install()
    import_guard.prefer_installed(start["hidden_names"], start["user_folders"])
    if start["niceness"]:
        _lower_priority(start["niceness"])
    channel = Channel(start["writing"])
    threading.Thread(target=channel.listen, daemon=True, name="raymill-parent").start()
    module, _, name = start["entry"].partition(":")
    code = 1
    try:
        getattr(importlib.import_module(module), name)(start["argument"], channel)
        code = 0
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # at once: other threads may still compute, and Python would wait for their locks
