"""Runs commands in processes that have the slow imports already, for tests that run many of them.

The program `command_server.py SOCKET` imports `PRELOADED` once. For each connection it forks, and the fork runs
`python -m raymill ARGUMENTS` with files as its streams. So the exit code, the output and the process are as a user's,
without the CPU-seconds that imports take. Nothing here computes or starts a thread before it forks.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import socket
import sys
from typing import Any

PRELOADED = (
    "raymill.cli.main", "raymill.session", "raymill.stages", "cluster.connect", "cluster.console", "filelock", "numpy",
    "pyarrow.csv", "pyarrow.parquet", "rich.table", "trainer.spec.run", "trainer.tasks.catalog",
)  # fmt: skip
# How often it looks whether its parent has ended.
_PARENT_S = 2.0


def serve(path: str) -> None:
    """Answer requests until the parent ends. In a fork it returns after the command, and the fork exits as Python does."""
    parent = os.getppid()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}  # the descriptor of a fork: its process id and its connection
    while os.getppid() == parent:
        for ready in select.select([listener.fileno(), *running], [], [], _PARENT_S)[0]:
            if ready in running:
                _report(*running.pop(ready))
                os.close(ready)
                continue
            connection, _ = listener.accept()
            request = json.loads(connection.makefile("r", encoding="utf-8").readline())
            pid = os.fork()
            if pid == 0:
                for open_file in (listener, connection, *(other for _, other in running.values())):
                    open_file.close()
                for descriptor in running:
                    os.close(descriptor)
                _become(request)
                runpy.run_module("raymill", run_name="__main__", alter_sys=True)
                return
            connection.sendall(f"{pid}\n".encode())
            running[os.pidfd_open(pid)] = pid, connection


def _report(pid: int, connection: socket.socket) -> None:
    """Send the exit code of a fork that has ended, negative for a signal."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with connection:
        connection.sendall(f"{code}\n".encode())


def _become(request: dict[str, Any]) -> None:
    """Give this process the streams, the arguments, the environment and the import path of `python -m raymill`."""
    for descriptor, name in enumerate((os.devnull, request["stdout"], request["stderr"])):
        opened = os.open(name, os.O_RDWR)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.orig_argv[:] = [sys.executable, "-m", "raymill", *request["arguments"]]
    sys.argv[:] = ["raymill", *request["arguments"]]
    sys.path.append(os.getcwd())  # noqa: PTH109  as raymill does with its working directory


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, in which modules are named as libraries are
    serve(sys.argv[1])
