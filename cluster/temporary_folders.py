"""Choose folders for what lives as long as one command: Ray's sockets, and scripts that are run.

Ray takes RAY_TMPDIR or TMPDIR as it is. It fails late, and with the message of another library, if Unix sockets in it
would have too long a path, or if it is no folder that this user may write to. HAProxy's configuration cannot name a
path with a space. A folder that is mounted with `noexec` runs no script. So each use states its needs, and takes the
first folder that meets them: the one that the environment names, or one of the system's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cluster.errors import ResourceError

#: The most bytes that the path of a Unix socket may have.
SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
_SYSTEM_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
# The longest name of a socket in Ray's temporary folder.
_RAY_SOCKET = "/ray/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store"
_RAY_VARIABLE = "RAY_TMPDIR"
_VARIABLE = "TMPDIR"


class Needs(NamedTuple):
    """What a use needs of a temporary folder."""

    socket: str = ""
    """Path of the longest socket in it, relative to it."""
    runs_scripts: bool = False
    plain_name: bool = False
    """Its path has neither white space nor quotes."""


RAY_NEEDS = Needs(socket=_RAY_SOCKET)


def find_fault(folder: Path, needs: Needs) -> str | None:
    """Return in a few words why a folder does not meet `needs`, or None if it does."""
    if not folder.is_absolute():
        return "is not an absolute path"
    if not folder.is_dir():
        return "is not a folder" if folder.exists() else "does not exist"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written"
    length = len(os.fsencode(str(folder) + needs.socket))
    if needs.socket and length > SOCKET_PATH_BYTES:
        longest = SOCKET_PATH_BYTES - len(os.fsencode(needs.socket))
        return f"is too long for the sockets in it: {length - len(needs.socket)} bytes, and {longest} fit"
    if needs.plain_name and any(letter.isspace() or letter in "'\"\\" for letter in str(folder)):
        return "has a space or a quote in its path"
    if needs.runs_scripts and _is_noexec(folder):
        return "is on a file system that runs no programs (noexec)"
    return None


def first_folder(folders: Iterable[Path], needs: Needs) -> Path | None:
    """Return the first of `folders` that meets `needs`, or None."""
    return next((folder for folder in folders if find_fault(folder, needs) is None), None)


@contextlib.contextmanager
def ray_temporary_folder() -> Iterator[Path]:
    """While the block runs, a Ray that starts keeps its sockets and logs in the yielded folder's `ray`.

    RAY_TMPDIR is set if the folder that Ray would take does not serve it. Raises `ResourceError` if RAY_TMPDIR is set
    and does not serve, or if no folder does.
    """
    folder = choose_ray_folder(os.environ)
    before = os.environ.get(_RAY_VARIABLE)
    rays_choice = before if before is not None else os.environ.get(_VARIABLE, "/tmp")  # it takes an empty value, too
    if rays_choice != str(folder):
        os.environ[_RAY_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            os.environ.pop(_RAY_VARIABLE, None)
        else:
            os.environ[_RAY_VARIABLE] = before


def choose_ray_folder(environment: Mapping[str, str], system: Iterable[Path] = _SYSTEM_FOLDERS) -> Path:
    """Return the folder for Ray's files: that of RAY_TMPDIR or TMPDIR if it serves, or the first of `system` that does.

    Raises `ResourceError` that names the variable.
    """
    named = environment.get(_RAY_VARIABLE)
    if named:
        fault = find_fault(Path(named), RAY_NEEDS)
        if fault:
            raise ResourceError(
                f"{_RAY_VARIABLE}={named!r} {fault}; Ray keeps its sockets there",
                f"set {_RAY_VARIABLE} to a short path of a folder that you may write to, such as /tmp, or unset it",
            )
        return Path(named)
    candidates = [*([Path(environment[_VARIABLE])] if environment.get(_VARIABLE) else []), *system]
    folder = first_folder(candidates, RAY_NEEDS)
    if folder is None:
        faults = "; ".join(f"{candidate} {find_fault(candidate, RAY_NEEDS)}" for candidate in candidates)
        raise ResourceError(
            f"there is no temporary folder for Ray's sockets: {faults}",
            f"set {_VARIABLE} to a short path of a folder that you may write to",
        )
    return folder


def ray_log_folder() -> Path:
    """Return the folder with the logs of a Ray that this process starts."""
    try:
        return choose_ray_folder(os.environ) / "ray"
    except ResourceError:
        return Path("/tmp/ray")


def script_folders() -> list[Path]:
    """Return where scripts and sockets of a proxy may be: the temporary folder of this process, then the system's."""
    with contextlib.suppress(FileNotFoundError):  # no folder can be written
        return [Path(tempfile.gettempdir()), *_SYSTEM_FOLDERS]
    return list(_SYSTEM_FOLDERS)


def _is_noexec(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))
