"""Load a function or class by `module:name`: only from the user's own modules, and only the source that was checked.

A contract may come from anywhere, and it names a module and a digest. The digests of modules in the standard library
and in site-packages are publicly known, so a check of the digest alone would let a contract call any function in them.
A module is therefore located without running it, refused if it is not the user's, and loaded from the bytes whose
digest was compared.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import site
import sys
import sysconfig
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from cluster.errors import ModelError, SpecError

_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_RAYMILL_PACKAGES = frozenset({"raymill", "cluster", "trainer", "tune", "serve"})
_RESERVED = _RAYMILL_PACKAGES | sys.stdlib_module_names | frozenset(sys.builtin_module_names) | {"__main__"}
_INSTALL_FOLDERS = frozenset({"site-packages", "dist-packages"})
_COPY_IT = "copy it into a module of your working directory"

#: Module name -> the digest of the source that this process loaded, and the loaded module.
_loaded: dict[str, tuple[str, ModuleType]] = {}


class UserSource(NamedTuple):
    """The source of a user's module, before the module has run."""

    path: str
    """`module:name`, as the user wrote it."""
    file: Path
    content: bytes
    key: str
    """The spec's key that names the module, for error messages."""

    @property
    def module(self) -> str:
        """Dotted name of the module."""
        return self.path.partition(":")[0]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the file."""
        return hashlib.sha256(self.content).hexdigest()


def find_source(path: str, key: str = "data.steps") -> UserSource:
    """Return the source of `module:name` without importing anything. Raises `SpecError` if it is not the user's own.

    `key` is the spec's key that names it, for the message.
    """
    if not _PATH.fullmatch(path):
        raise SpecError(f"{key}: {path!r} is not a valid module:name", "write it as my_module:name")
    name = path.partition(":")[0]
    top, *below = name.split(".")
    if top in _RESERVED:
        owner = "raymill" if top in _RAYMILL_PACKAGES else "Python"
        raise SpecError(f"{key}: {path} is a part of {owner}, not one of your own modules", _COPY_IT)
    spec = _find_top_module(top)
    # Importing a module runs its packages, so their locations count as well as the module's own.
    top_file = [Path(spec.origin)] if spec and spec.has_location and spec.origin else []
    for location in [*_package_folders(spec), *top_file]:
        _check_not_installed(location, path, key)
    file = _module_file(spec, below)
    if file is None or (file.suffix == ".py" and not file.is_file()):
        raise SpecError(
            f"{key}: there is no module '{name}' for {path}",
            f"run from the folder that holds {name.replace('.', os.sep)}.py, or put that folder on the Python path",
        )
    _check_not_installed(file, path, key)
    if file.suffix != ".py":
        raise SpecError(f"{key}: {name} is not written in Python ({file})", "name a module with a source file")
    return UserSource(path, file, file.read_bytes(), key)


def find_pinned_source(path: str, key: str, digest: object, copy: str) -> UserSource:
    """Return the source of `module:name` after comparing its digest with the one the model was trained with.

    `copy` is the name of the copy in the model's folder. Raises `ModelError` if the source differs or is missing.
    """
    try:
        source = find_source(path, key)
    except SpecError as error:
        raise _as_model_error(error) from error
    if source.digest != digest:
        raise ModelError(
            f"{source.file} is not the source of {path} that the model was trained with",
            f"restore it (the model's folder has a copy, {copy}), or train again",
        )
    return source


def load_pinned_object(source: UserSource) -> Any:
    """Return the function or class that a model's source names. Like `load_user_object`, but raises `ModelError`."""
    try:
        return load_user_object(source)
    except SpecError as error:
        raise _as_model_error(error) from error


def _as_model_error(error: SpecError) -> ModelError:
    return ModelError(error.problem, f"{error.fix} (if you change the source, train again)")


def load_user_object(source: UserSource) -> Any:
    """Return the function or class that `source` names, after running its module unless the same bytes already ran.

    Raises `SpecError`.
    """
    name, attribute, key = source.module, source.path.partition(":")[2], source.key
    digest, module = _loaded.get(name, ("", None))
    if module is None or digest != source.digest or sys.modules.get(name) is not module:
        module = _run_module(source)
        _loaded[name] = source.digest, module
    if not hasattr(module, attribute):
        raise SpecError(f"{key}: {name} has no '{attribute}'", "correct the name after the colon")
    value = getattr(module, attribute)
    if not callable(value):
        raise SpecError(f"{key}: {source.path} is not a function or a class", "name a function or a class")
    home = getattr(value, "__module__", None)
    if home != name:  # the pinned source would not be the one that runs
        original = f"{home}:{getattr(value, '__name__', attribute)}"
        raise SpecError(
            f"{key}: {source.path} is defined in {home}, not in {name}",
            f"write {original} if that module is yours, or define one of your own in {name}",
        )
    return value


def _find_top_module(top: str) -> ModuleSpec | None:
    # A console script does not have the working directory on its path; `python -m raymill` and Ray jobs do.
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:
        sys.path.append(working_directory)
    importlib.invalidate_caches()  # the file may be new
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module that was created without a file
        return None


def _package_folders(spec: ModuleSpec | None) -> list[Path]:
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _module_file(spec: ModuleSpec | None, below: list[str]) -> Path | None:
    """Return the file of the module `below` a top-level one. `find_spec` of a dotted name would run its packages."""
    if spec is None:
        return None
    if not below:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    folders = [folder.joinpath(*below[:-1]) for folder in _package_folders(spec)]
    files = (file for folder in folders for file in (folder / below[-1] / "__init__.py", folder / f"{below[-1]}.py"))
    return next((file for file in files if file.is_file()), None)


def _check_not_installed(location: Path, path: str, key: str) -> None:
    """Raise `SpecError` if a file or folder lies where Python or pip installs packages."""
    known = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = [Path(folder) for folder in (*known, site.getusersitepackages())]
    installed += [folder.resolve() for folder in installed]
    for variant in (location.absolute(), location.resolve()):  # a link may lead into such a folder, or out of it
        inside = any(variant.is_relative_to(folder) for folder in installed)
        if inside or not _INSTALL_FOLDERS.isdisjoint(variant.parts):
            raise SpecError(
                f"{key}: {path} is in an installed package ({variant}), not in one of your own modules", _COPY_IT
            )


class _SourceLoader(SourceFileLoader):
    """Loads the bytes whose digest was compared, never a file that changed since or a cached compiled file."""

    def __init__(self, source: UserSource) -> None:
        super().__init__(source.module, str(source.file))
        self._content = source.content

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._content, self.path)
        return code


def _run_module(source: UserSource) -> ModuleType:
    """Import the module from the bytes of `source`. Raises `SpecError`, and then `sys.modules` is as before."""
    name, path, key = source.module, source.path, source.key
    before = sys.modules.get(name)
    try:
        package, _, last = name.rpartition(".")
        parent = importlib.import_module(package) if package else None
        spec = importlib.util.spec_from_file_location(name, source.file, loader=_SourceLoader(source))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        if parent is not None:
            setattr(parent, last, module)
    except (Exception, SystemExit) as error:
        _restore_module(name, before)
        if isinstance(error, ModuleNotFoundError):
            raise SpecError(f"{key}: {path} cannot be imported: {error}", f"install {error.name}") from error
        raise SpecError(
            f"{key}: importing {name} raised {type(error).__name__}: {error}", "correct the module"
        ) from error
    return module


def _restore_module(name: str, before: ModuleType | None) -> None:
    if before is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = before
