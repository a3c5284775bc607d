"""Keep a user's own trainer.py, serve.py, tune.py or cluster/ from hiding raymill's packages of the same names.

The working directory comes first on the import path of `python -m raymill`, of Ray's workers and of Ray jobs. The guard
is an import finder in front of Python's own finders. It always resolves the four names in the folder that holds the
package `raymill`. It is installed when `raymill` is imported, and in Ray's workers by a setup hook. The hook costs a
second for each kind of worker, so it is used only if there is a file to guard against.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.ray_internals import WORKER_SETUP_HOOK_VARIABLE

PACKAGES = ("cluster", "trainer", "tune", "serve")
#: The folder that holds raymill's packages.
ROOT = Path(__file__).absolute().parents[1]


class _OwnPackages(importlib.abc.MetaPathFinder):
    """An import finder that finds only raymill's packages, in `ROOT`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in PACKAGES else None


def install() -> None:
    """Install the finder in this process. Raises `ImportError` if a file that hides a package was already imported."""
    for name in PACKAGES:
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded and Path(loaded).absolute().parent != ROOT / name:
            raise ImportError(
                f"{loaded} was imported as '{name}' before raymill and hides raymill's package '{name}'; "
                "rename that file, or import raymill first"
            )
    if not any(isinstance(finder, _OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OwnPackages())


def hiding_files() -> list[str]:
    """Return the files in the working directory or on the import path that would hide a package of raymill's."""
    files = []
    for name in PACKAGES:
        spec = importlib.machinery.PathFinder.find_spec(name, [str(Path.cwd()), *sys.path])
        if spec is not None and spec.origin and Path(spec.origin).absolute().parent != ROOT / name:
            files.append(spec.origin)
    return files


def job_environment() -> dict[str, Any]:
    """Return the part of a Ray job's runtime environment that installs the guard in every worker.

    Returns {} if no file hides a package. Raises `ImportError` with the file's name if the job already has a setup
    hook, because Ray takes only one.
    """
    files = hiding_files()
    if not files:
        return {}
    if os.environ.get(WORKER_SETUP_HOOK_VARIABLE):
        raise ImportError(
            f"{files[0]} hides one of raymill's packages in Ray's workers. raymill cannot prevent this, because the "
            f"job has its own worker_process_setup_hook; rename {files[0]}"
        )
    return {"worker_process_setup_hook": _worker_hook()}


def actor_environment() -> dict[str, Any]:
    """Return the runtime environment that installs the guard in a replica of an application from `serve deploy`.

    raymill does not start the job of such an application. Returns {} if no file hides a package.
    """
    return {"env_vars": {WORKER_SETUP_HOOK_VARIABLE: "raymill.own_packages.guard"}} if hiding_files() else {}


def _worker_hook() -> Callable[[], None]:
    root = str(ROOT)

    def guard_own_packages() -> None:
        # Ray pickles a nested function by value. A worker could not import it by name from a hidden package.
        import importlib
        import importlib.util
        import sys

        if importlib.util.find_spec("raymill") is None:  # not installed: this machine runs it from its folder
            sys.path.append(root)
        importlib.import_module("raymill")

    return guard_own_packages
