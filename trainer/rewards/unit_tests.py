"""Reward: whether the Python code of an answer passes a script of tests, in a process with limits.

The code comes from a model: it is not to be trusted. The process has limits of time, memory, files and processes, an
empty working directory, none of this process's environment, and no network where the system allows to take it away
(Linux with user namespaces). It can still read files of the user who runs the training. That is no sandbox: use a
container or a user of its own where this matters.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile

from cluster.errors import ResourceError

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_MAX_FILE_BYTES, _MAX_FILES = 1 << 20, 64

# Run by the child. First the limits, then the answer, then the tests: the answer cannot report success by ending early,
# because the word that reports it is read after the answer has run.
_CHILD = """
import ctypes, json, os, resource, sys
limits = json.loads(sys.stdin.readline())
def limit(name, value):
    if hasattr(resource, name):
        resource.setrlimit(getattr(resource, name), (value, value))
limit("RLIMIT_CORE", 0)
limit("RLIMIT_FSIZE", limits["file_bytes"])
limit("RLIMIT_NOFILE", limits["files"])
limit("RLIMIT_CPU", limits["seconds"])
if sys.platform == "linux":
    NEW_USER, NEW_NET = 0x10000000, 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(NEW_USER | NEW_NET) and libc.unshare(NEW_NET)
    limit("RLIMIT_AS", limits["memory"])
    limit("RLIMIT_NPROC", 0)
answer, names = json.loads(sys.stdin.readline()), {"__name__": "answer"}
exec(compile(answer, "answer.py", "exec"), names)
tests, word = json.loads(sys.stdin.readline())
exec(compile(tests, "tests.py", "exec"), names)
os.write(limits["channel"], word.encode())
"""


def code_of(answer: str) -> str:
    """Return the Python code of an answer: its fenced blocks one after the other, or the whole answer without any."""
    blocks = _FENCE.findall(answer)
    return "\n".join(blocks) if blocks else answer


def passes_tests(answer: str, tests: str, timeout_s: float, memory_mb: int) -> bool:
    """Return whether `tests`, a Python script, runs to its end after the code of `answer`, in the same namespace.

    Anything else is False: an exception, too much time or memory, a process that ends early.
    """
    word = secrets.token_hex(16)
    reading, writing = os.pipe()
    limits = {
        "memory": memory_mb << 20,
        "seconds": int(timeout_s) + 1,
        "file_bytes": _MAX_FILE_BYTES,
        "files": _MAX_FILES,
        "channel": writing,
    }
    lines = "".join(json.dumps(part) + "\n" for part in (limits, code_of(answer), [tests, word]))
    try:
        with tempfile.TemporaryDirectory(prefix="raymill-tests-") as folder:
            _run(lines.encode(), folder, writing, timeout_s)
        os.set_blocking(reading, False)
        try:
            return os.read(reading, 64) == word.encode()
        except BlockingIOError:
            return False
    finally:
        os.close(reading)
        os.close(writing)


def _run(text: bytes, folder: str, channel: int, timeout_s: float) -> None:
    """Run the child with `text` as its input until it ends or its time is over, and end whatever it started."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "PYTHONHASHSEED": "0"},
            pass_fds=(channel,),
            start_new_session=True,
        )
    except OSError as error:
        raise ResourceError(
            f"the tests of an answer cannot be started: {error}", "free memory and processes"
        ) from error
    try:
        process.communicate(text, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
        process.communicate()
