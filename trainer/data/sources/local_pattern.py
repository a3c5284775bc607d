"""Find the local files that a pattern names.

A name that exists is that name, whatever signs are in it: a folder called `exp [v2]` is no pattern. Only the names that
do not exist are patterns. The folder of a spec exists, so nothing in its path is ever one.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path


def is_pattern(path: str) -> bool:
    """Whether a local path is a pattern: it names nothing that exists, and has signs of a pattern."""
    return glob.has_magic(path) and not os.path.lexists(path)


def match_files(pattern: str) -> list[Path]:
    """Return the files that a pattern matches, sorted by path; [] if there are none."""
    return [path for path in match_paths(pattern) if path.is_file()]


def match_paths(pattern: str) -> list[Path]:
    """Return the files and folders that a pattern matches, sorted by path."""
    start = os.path.sep if pattern.startswith(os.path.sep) else ""
    names = [name for name in pattern.split(os.path.sep) if name]
    return sorted({Path(match) for match in _match(start, names)})


def first_pattern(pattern: str) -> int:
    """Return the index of the first name in a path, among the parts of `Path(pattern)`, that is a pattern."""
    parts = Path(pattern).parts
    prefix = Path()
    for index, name in enumerate(parts):
        prefix = prefix / name
        if glob.has_magic(name) and not os.path.lexists(prefix):
            return index
    return len(parts)


def _match(folder: str, names: list[str]) -> list[str]:
    """Return the paths below `folder` that the names match, one folder after the other."""
    if not names:
        return [folder]
    name, rest = names[0], names[1:]
    own = os.path.join(folder, name)  # noqa: PTH118  the folder may be "", and a Path of it "."
    if os.path.lexists(own):
        return _match(own, rest)
    if not glob.has_magic(name):
        return []
    escaped = os.path.join(glob.escape(folder), name)  # noqa: PTH118
    if name == "**" and rest:  # any number of folders, also none
        folders = glob.glob(os.path.join(escaped, ""), recursive=True)  # noqa: PTH118
        folders = folders if folder else ["", *folders]  # glob leaves out the working directory itself
        return [match for inner in folders for match in _match(inner.rstrip(os.path.sep) or inner, rest)]
    return [match for inner in glob.glob(escaped, recursive=True) for match in _match(inner, rest)]
