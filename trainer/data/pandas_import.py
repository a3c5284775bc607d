"""Keep pyarrow from importing pandas, which takes half a second and which raymill does not use."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

import pyarrow as pa

_NAME = "pandas"


def leave_out_pandas() -> None:
    """Let pyarrow work without pandas in this process until something else imports it.

    `pyarrow.array` imports pandas once, to see whether a list of Python objects is a series. It works without pandas too,
    and asks only once. If a user's own code imports pandas later, pyarrow takes its series and frames as usual.
    """
    if _NAME in sys.modules or any(isinstance(finder, _Watch) for finder in sys.meta_path):
        return
    stand_in = types.ModuleType(_NAME)
    stand_in.__version__ = "0"  # type: ignore[attr-defined]  # too old for pyarrow
    sys.modules[_NAME] = stand_in
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pa.array([None])
    finally:
        del sys.modules[_NAME]
    sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder):
    """Waits for the first import of pandas, and then lets pyarrow use it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads pandas as its own loader does; pyarrow then imports it, as for any conversion to it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        pa.array([None]).to_pandas()
