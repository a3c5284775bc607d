"""Make sure that the names `cluster`, `trainer`, `tune` and `serve` import raymill's packages in this process.

`cluster.import_guard` has the rules. This module imports nothing but `sys` and `os` before it has put the working
directory last, as even a module of Python's own may have the name of a user's file there.
"""

from __future__ import annotations

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  before pathlib


def guard() -> None:
    """Install `cluster.import_guard`. Import it from the folder of raymill's packages, not from a user's file."""
    if _is_raymill_module():
        _put_working_directory_last()
    sys.path.insert(0, _ROOT)
    try:
        from cluster import import_guard
    except ImportError as error:
        file = getattr(sys.modules.get("cluster"), "__file__", "a module")
        raise ImportError(
            f"{file} was imported as 'cluster' before raymill and hides raymill's package 'cluster'; "
            "rename that file, or import raymill first"
        ) from error
    finally:
        sys.path.remove(_ROOT)
    import_guard.install()


def guard_command() -> None:
    """Let installed modules come before the user's files in a process that runs raymill's command."""
    from cluster.import_guard import hidden_names, prefer_installed, user_folders

    folders = user_folders()
    prefer_installed(hidden_names(folders), folders)


def guard_worker() -> None:
    """Do both in a Ray worker. An application from `serve deploy` names this function as its workers' setup hook."""
    guard()
    guard_command()


def _is_raymill_module() -> bool:
    """Return whether Python is starting `python -m raymill`."""
    words = sys.orig_argv
    return sys.argv[:1] == ["-m"] and (
        "-mraymill" in words or ("-m" in words and words[words.index("-m") + 1] == "raymill")
    )


def _put_working_directory_last() -> None:
    """Move the working directory, which Python puts first for `python -m`, to the end of the import path."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path.append(sys.path.pop(0))
