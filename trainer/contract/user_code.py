"""A module of the user's: found without running it, told from everybody else's, loaded from the very bytes looked at.

A contract may come from anywhere, and it names a module and a digest. What stands in the standard library or in
site-packages is known to everyone, its digest too, so a digest alone would let a contract call any function there is.
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
_OURS = frozenset({"raymill", "raymill_cli", "cluster", "trainer", "tune", "serve"})
_NOT_THE_USERS = _OURS | sys.stdlib_module_names | frozenset(sys.builtin_module_names) | {"__main__"}
_SHARED_FOLDERS = frozenset({"site-packages", "dist-packages"})
_COPY_IT = "copy it into a module of your working directory"

#: Module -> the digest of the source it was loaded from here, and the module itself.
_loaded: dict[str, tuple[str, ModuleType]] = {}


class Source(NamedTuple):
    """The source of a module that has not been run."""

    path: str
    """`module:name`, as the user wrote it."""
    file: Path
    content: bytes
    key: str
    """The spec's key that names it, for messages."""

    @property
    def module(self) -> str:
        """The module's dotted name."""
        return self.path.partition(":")[0]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the file."""
        return hashlib.sha256(self.content).hexdigest()


def find(path: str, key: str = "data.steps") -> Source:
    """Return the source of `module:name` without importing anything. Raises `SpecError` if it is not the user's.

    `key` is the spec's key that names it, for the message.
    """
    if not _PATH.fullmatch(path):
        raise SpecError(f"{key}: {path!r} is no module:name", "write it as my_module:name")
    name = path.partition(":")[0]
    top, *below = name.split(".")
    if top in _NOT_THE_USERS:
        owner = "raymill" if top in _OURS else "Python"
        raise SpecError(f"{key}: {path} is a part of {owner}, not one of your own", _COPY_IT)
    spec = _spec_of(top)
    # A package runs when a module in it is imported, so its place counts as well as the module's own.
    for place in [*_places(spec), *([Path(spec.origin)] if spec and spec.has_location and spec.origin else [])]:
        _must_be_the_users(place, path, key)
    file = _file_of(spec, below)
    if file is None or (file.suffix == ".py" and not file.is_file()):
        raise SpecError(
            f"{key}: there is no module '{name}' for {path}",
            f"run from the folder that holds {name.replace('.', os.sep)}.py, or put that folder on the Python path",
        )
    _must_be_the_users(file, path, key)
    if file.suffix != ".py":
        raise SpecError(f"{key}: {name} is not written in Python ({file})", "name a module with a source file")
    return Source(path, file, file.read_bytes(), key)


def pinned(path: str, key: str, digest: object, copy: str) -> Source:
    """Return the source of `module:name` if its digest is the one a model was trained with.

    `copy` is the name of the copy in the model's folder. Raises `ModelError` if it is another one, or not there.
    """
    try:
        source = find(path, key)
    except SpecError as error:
        raise _another_training(error) from error
    if source.digest != digest:
        raise ModelError(
            f"{source.file} is not the source of {path} that the model was trained with",
            f"restore it (the model's folder has a copy, {copy}), or train again",
        )
    return source


def load_pinned(source: Source) -> Any:
    """Return what `load` does, for a model: raises `ModelError`."""
    try:
        return load(source)
    except SpecError as error:
        raise _another_training(error) from error


def _another_training(error: SpecError) -> ModelError:
    return ModelError(error.problem, f"{error.fix} (a change of the source needs another training)")


def load(source: Source) -> Any:
    """Run the module, unless it ran already from the same bytes, and return what is called so. Raises `SpecError`."""
    name, attribute, key = source.module, source.path.partition(":")[2], source.key
    digest, module = _loaded.get(name, ("", None))
    if module is None or digest != source.digest or sys.modules.get(name) is not module:
        module = _run(source)
        _loaded[name] = source.digest, module
    if not hasattr(module, attribute):
        raise SpecError(f"{key}: {name} has no '{attribute}'", "correct the name after the colon")
    function = getattr(module, attribute)
    if not callable(function):
        raise SpecError(f"{key}: {source.path} is no function and no class", "name one of your own")
    home = getattr(function, "__module__", None)
    if home != name:  # the source that is pinned would not be the one that runs
        wanted = f"{home}:{getattr(function, '__name__', attribute)}"
        raise SpecError(
            f"{key}: {source.path} is defined in {home}, not in {name}",
            f"write {wanted} if that module is yours, or define one of your own in {name}",
        )
    return function


def _spec_of(top: str) -> ModuleSpec | None:
    # A console script does not have the working directory on its path; `python -m raymill` and Ray jobs do.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()  # the file may be a moment old
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module made by hand, without a file
        return None


def _places(spec: ModuleSpec | None) -> list[Path]:
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def _file_of(spec: ModuleSpec | None, below: list[str]) -> Path | None:
    """Return the file of the module `below` a top-level one. find_spec of a dotted name would run its packages."""
    if spec is None:
        return None
    if not below:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    folders = [place.joinpath(*below[:-1]) for place in _places(spec)]
    found = (file for folder in folders for file in (folder / below[-1] / "__init__.py", folder / f"{below[-1]}.py"))
    return next((file for file in found if file.is_file()), None)


def _must_be_the_users(place: Path, path: str, key: str) -> None:
    known = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    shared = [Path(folder) for folder in (*known, site.getusersitepackages())]
    shared += [folder.resolve() for folder in shared]
    for way in (place.absolute(), place.resolve()):  # a link may lead into such a folder, or out of it
        inside = any(way.is_relative_to(folder) for folder in shared)
        if inside or not _SHARED_FOLDERS.isdisjoint(way.parts):
            raise SpecError(f"{key}: {path} is an installed one ({way}), not one of your own", _COPY_IT)


class _Loader(SourceFileLoader):
    """Runs the bytes whose digest was looked at: not a file that changed since, nor a cached one of the same second."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.module, str(source.file))
        self._content = source.content

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._content, self.path)
        return code


def _run(source: Source) -> ModuleType:
    name, path, key = source.module, source.path, source.key
    before = sys.modules.get(name)
    try:
        package, _, last = name.rpartition(".")
        parent = importlib.import_module(package) if package else None
        spec = importlib.util.spec_from_file_location(name, source.file, loader=_Loader(source))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        if parent is not None:
            setattr(parent, last, module)
    except (Exception, SystemExit) as error:
        _put_back(name, before)
        if isinstance(error, ModuleNotFoundError):
            raise SpecError(f"{key}: {path} cannot be imported: {error}", f"install {error.name}") from error
        raise SpecError(f"{key}: importing {name} raised {type(error).__name__}: {error}", "repair it") from error
    return module


def _put_back(name: str, before: ModuleType | None) -> None:
    if before is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = before
