"""The program `raymill-haproxy`, which Ray Serve runs on each node of a cluster in place of HAProxy.

It edits the configuration that Ray Serve wrote, and becomes HAProxy. `RAY_SERVE_HAPROXY_BINARY_PATH` names it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from serve.haproxy_config import PROGRAM, edit_for_cluster, find_binary
from serve.ingress_settings import read_settings


def main() -> None:
    """Edit each configuration among the arguments, then become HAProxy."""
    settings = read_settings()
    for argument in sys.argv[1:]:
        if argument.endswith(".cfg"):
            path = Path(argument)
            path.write_text(
                edit_for_cluster(path.read_text(encoding="utf-8"), settings.client_timeout_s, settings.cors_origins),
                encoding="utf-8",
            )
    binary = find_binary()
    if binary is None:
        sys.exit("HAProxy is not installed: `pip install 'ray[serve]'` includes it")
    # Ctrl-C in a terminal reaches all processes; Ray Serve's proxy ends HAProxy itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # HAProxy must not outlive the proxy that started it: it would keep the port, with replicas of long ago.
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    command = [*guard, binary, *sys.argv[1:]]
    os.execvp(command[0], command)


def program_path() -> str | None:
    """Return the path of this program, beside Python's own; None if it is not installed there."""
    path = Path(sys.executable).parent / PROGRAM
    return str(path) if os.access(path, os.X_OK) else None


if __name__ == "__main__":
    main()
