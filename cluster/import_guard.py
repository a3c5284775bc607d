"""Keep a user's own files from hiding raymill's packages, and the libraries that raymill uses.

A user's serve.py, torch.py or emoji.py in the working directory is the user's, and `import serve` in raymill is not
meant for it. But the working directory comes first on the import path of `python -m raymill` and of Ray jobs, and Ray
puts it first in its workers, as it does with the folder of the script that runs. The rules:

1. `raymill`, `cluster`, `trainer`, `tune` and `serve` are always resolved in the folder that holds the package `raymill`.
2. Where raymill owns the process (its command, the children that it starts, Ray's workers), an installed module comes
   before a user's file of the same name. A user's file that this process has imported stays what it is: it is the
   user's Python that runs here.

Rule 1 is an import finder in front of Python's own finders. Rule 2 is a second finder, for the names that a user's file
would hide. In Ray's workers a setup hook installs both. The hook costs a second for each kind of worker, so it is used
only if there is such a file.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.ray_internals import WORKER_SETUP_HOOK_VARIABLE

PACKAGES = ("cluster", "trainer", "tune", "serve")
#: The folder that holds raymill's packages.
ROOT = Path(__file__).absolute().parents[1]
_OWN = (*PACKAGES, "raymill")
# Names that projects have and that no library imports.
_OF_PROJECTS = frozenset({"conftest", "docs", "examples", "setup", "test", "tests"})


class _OwnPackages(importlib.abc.MetaPathFinder):
    """An import finder that finds only raymill's packages, in `ROOT`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in _OWN else None


class _InstalledFirst(importlib.abc.MetaPathFinder):
    """An import finder that finds the top-level modules `names` outside the user's `folders`."""

    def __init__(self, names: Iterable[str], folders: Iterable[str]) -> None:
        self._names, self._folders = frozenset(names), frozenset(folders)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return _find_installed(fullname, self._folders) if path is None and fullname in self._names else None


def install() -> None:
    """Install the finder of raymill's packages in this process.

    Raises `ImportError` if a file that hides a package was already imported.
    """
    for name in PACKAGES:
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded and Path(loaded).absolute().parent != ROOT / name:
            raise ImportError(
                f"{loaded} was imported as '{name}' before raymill and hides raymill's package '{name}'; "
                "rename that file, or import raymill first"
            )
    if not any(isinstance(finder, _OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OwnPackages())


def prefer_installed(names: Iterable[str], folders: Iterable[str]) -> None:
    """Let the installed modules `names` come before files in the user's `folders`, in this process from now on."""
    if names:
        sys.meta_path.insert(1, _InstalledFirst(names, folders))


def user_folders() -> list[str]:
    """Return the folders of the user that Ray puts first on its workers' import path: where we are, and the script's."""
    folders = []
    with contextlib.suppress(OSError):  # the working directory was deleted
        folders.append(os.path.abspath(os.curdir))  # noqa: PTH100  as Ray computes it
    script = os.path.dirname(os.path.realpath(sys.argv[0] if sys.argv else ""))  # noqa: PTH120
    if script in sys.path and not _is_program_folder(script):
        folders.append(script)
    return folders


def hiding_files() -> list[str]:
    """Return the files that would hide a package of raymill's: in the working directory or on the import path."""
    files = []
    for name in _OWN:
        spec = importlib.machinery.PathFinder.find_spec(name, [*user_folders(), *sys.path])
        if spec is not None and spec.origin and Path(spec.origin).absolute().parent != ROOT / name:
            files.append(spec.origin)
    return files


def hidden_names(folders: Sequence[str]) -> list[str]:
    """Return the installed top-level modules that a file in the user's `folders` would hide.

    A module that this process has imported from there is left out.
    """
    names = sorted({name for folder in folders for name in _module_names(folder)} - _OF_PROJECTS - set(_OWN))
    return [
        name
        for name in names
        if not _is_loaded_from(name, folders)
        and (name in sys.stdlib_module_names or _find_installed(name, frozenset(folders)) is not None)
    ]


def job_environment() -> dict[str, Any]:
    """Return the part of a Ray job's runtime environment with which its workers import and start as they should.

    Returns {} if no file hides a module and the path of Python needs no quotes. Raises `ImportError` with the file's name
    if the job already has a setup hook, because Ray takes only one.
    """
    environment = _quoted_python()
    files, folders = hiding_files(), user_folders()
    names = hidden_names(folders)
    if not files and not names:
        return environment
    if os.environ.get(WORKER_SETUP_HOOK_VARIABLE):
        file = files[0] if files else f"a file '{names[0]}' in {folders[0]}"
        what = "one of raymill's packages" if files else "an installed module"
        raise ImportError(
            f"{file} hides {what} in Ray's workers. raymill cannot prevent this, because the "
            f"job has its own worker_process_setup_hook; rename {file}"
        )
    return {**environment, "worker_process_setup_hook": _worker_hook(names, folders)}


def actor_environment() -> dict[str, Any]:
    """Return the runtime environment that installs the guard in a replica of an application from `serve deploy`.

    raymill does not start the job of such an application. Returns {} if no file hides a module.
    """
    if not hiding_files() and not hidden_names(user_folders()):
        return {}
    return {"env_vars": {WORKER_SETUP_HOOK_VARIABLE: "raymill.own_packages.guard_worker"}}


def _quoted_python() -> dict[str, Any]:
    """Return the setting without which Ray's workers do not start if Python is in a folder with a space.

    Ray puts the path into a shell command as it is, for workers with a runtime environment.
    """
    quoted = shlex.quote(sys.executable)
    return {} if quoted == sys.executable else {"py_executable": quoted}


def _worker_hook(names: list[str], folders: list[str]) -> Callable[[], None]:
    root = str(ROOT)

    def guard_modules() -> None:
        # Ray pickles a nested function by value. A worker could not import it by name from a hidden package.
        import importlib
        import sys
        from pathlib import Path

        # raymill itself may be hidden, and on this machine it may be run from its folder without being installed.
        folders_to_try = [*sys.path, root]
        home = next((x for x in folders_to_try if Path(x, "raymill", "own_packages.py").is_file()), None)
        if home is not None:  # otherwise it is installed in a way of its own, as an editable package
            sys.path.insert(0, home)
        importlib.import_module("raymill")
        if home is not None:
            sys.path.remove(home)
            sys.path.extend([] if home in sys.path else [home])
        import_guard = importlib.import_module("cluster.import_guard")
        import_guard.prefer_installed(names, [*folders, *import_guard.user_folders()])

    return guard_modules


def _module_names(folder: str) -> set[str]:
    """Return the names of the modules and packages in a folder. A folder without `__init__.py` hides nothing."""
    names = set()
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return set()
    for entry in entries:
        name, dot, ending = entry.name.partition(".")
        if name.isidentifier() and (
            f"{dot}{ending}" in importlib.machinery.all_suffixes()
            or (not dot and (Path(entry.path) / "__init__.py").is_file())
        ):
            names.add(name)
    return names


def _find_installed(name: str, folders: frozenset[str]) -> importlib.machinery.ModuleSpec | None:
    """Return the spec of a module outside the user's folders; None if there is none, or only a folder of files."""
    path = [entry for entry in sys.path if entry and entry not in folders]
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    return spec if spec is not None and spec.loader is not None and spec.has_location else None


def _is_loaded_from(name: str, folders: Sequence[str]) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return bool(file) and any(Path(str(file)).absolute().is_relative_to(folder) for folder in folders)


def _is_program_folder(folder: str) -> bool:
    """Return whether a folder holds Python's own scripts, as that of the `raymill` command does."""
    return Path(folder) == Path(sys.executable).parent
