"""A spec while it is drafted: its keys, the comments on them, and what is assumed and unsure."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from cluster.errors import RaymillError, SpecError
from cluster.paths import expand_home
from trainer.data.parts import PARTS
from trainer.data.sources.remote import is_remote
from trainer.draft.yaml_text import Keys, write_yaml
from trainer.spec.run import RunSpec
from trainer.spec.spec_file import read_spec_file
from trainer.tasks.draft_options import Doubt
from trainer.tasks.load_spec import load_spec


class SpecBuilder:
    """Collects a spec. Paths in it are relative to `folder`, the folder of the spec's file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spec: dict[str, Any] = {}
        self._comments: dict[Keys, str] = {}
        self._below: dict[Keys, list[str]] = {}
        self.assumed: list[str] = []
        self.unsure: list[Doubt] = []

    def set(self, keys: Keys, value: Any, comment: str = "") -> None:
        """Set a key; sections on the way are made. Raises `SpecError` for a value that the spec would not keep."""
        if "${" in str(value):
            raise SpecError(
                f"{'.'.join(keys)} would be {value!r}, and a spec replaces ${{NAME}} by an environment variable",
                "rename the file or the column",
            )
        section = self._spec
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        section[keys[-1]] = value
        if comment:
            self.comment(keys, comment)

    def comment(self, keys: Keys, text: str) -> None:
        """Add a comment to the line of a key."""
        self._comments[keys] = f"{self._comments[keys]}; {text}" if keys in self._comments else text

    def add_below(self, keys: Keys, line: str) -> None:
        """Add a comment line at the end of a section."""
        self._below.setdefault(keys, []).append(line)

    def get(self, *keys: str) -> Any:
        """Return the value of a key, or None."""
        value: Any = self._spec
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def relative(self, source: str) -> str:
        """Return a path as the spec writes it: absolute if only the root contains both it and the spec's folder."""
        if is_remote(source):
            return source
        path = os.path.abspath(expand_home(source))  # noqa: PTH100  it may be a glob, or a link
        return path if os.path.commonpath([path, self._folder]) == os.sep else os.path.relpath(path, self._folder)

    def load(self) -> RunSpec:
        """Return the spec as `load_spec` reads it from a file in the folder. Raises `SpecError` if it is not valid."""
        return load_spec(self._with_absolute_paths())

    def render(self, header: list[str]) -> str:
        """Return the spec as YAML with comments, after reading it back."""
        text = write_yaml(self._spec, self._comments, header=header, below=self._below)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "run.yaml"
            path.write_text(text, encoding="utf-8")
            load_spec(path)
            if read_spec_file(path) != self._spec:
                raise RaymillError("the drafted YAML reads back as another spec")
        return text

    def _with_absolute_paths(self) -> dict[str, Any]:
        data = dict(self._spec["data"])
        for part in PARTS:
            if isinstance(data.get(part), str):
                data[part] = self._absolute(data[part])
            elif part in data:
                data[part] = [self._absolute(path) for path in data[part]]
        model = dict(self._spec.get("model", {}))
        if str(model.get("base", "")).startswith("."):
            model["base"] = self._absolute(model["base"])
        return {**self._spec, "data": data, **({"model": model} if model else {})}

    def _absolute(self, path: str) -> str:
        return path if is_remote(path) else str(self._folder / path)
