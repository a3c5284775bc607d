"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.errors import ResourceError


def expand_home(path: str | Path) -> Path:
    """Return `path` with a leading `~` or `~name` replaced by that user's home folder.

    As in a shell, the path stays as it is if there is no user `name`. Raises `ResourceError` if this user has no home
    folder, as in a container that runs under any number, or if the path is not UTF-8.
    """
    check_is_text(path)
    try:
        if os.environ.get("HOME") == "" and Path(path).parts[:1] == ("~",):
            raise RuntimeError("HOME is empty, and Python would take the root folder")
        return Path(path).expanduser()
    except RuntimeError as error:
        if Path(path).parts[0] != "~":
            return Path(path)
        raise ResourceError(
            f"{str(path)!r} is in the home folder, and this user has none: "
            + ("HOME is empty" if "HOME" in os.environ else f"HOME is not set, and user {os.getuid()} is not listed"),
            "set HOME, or name another folder, for example with `--storage /data/raymill`",
        ) from error


def check_is_text(path: str | Path) -> None:
    """Raise `ResourceError` if a path has bytes that are not UTF-8: specs and records hold paths as text."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("latin-1")
        raise ResourceError(
            f"the path {str(path)!r} has bytes that are not UTF-8; it may be {shown!r} in another encoding",
            "rename the folder or file, for example with `convmv -f latin1 -t utf8`, or use another one",
        ) from error
