"""The files of a working directory that travel with a job, and those that are left out, with the reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from cluster.errors import ResourceError
from cluster.text import is_unicode

#: A larger file is left out.
MAX_FILE_BYTES = 10_000_000
#: More files than this are not collected: the directory is no project.
MAX_FILES = 20_000
#: Files with patterns in the syntax of git of what does not travel.
IGNORE_FILES = (".gitignore", ".rayignore")

_VERSION_CONTROL = (".git", ".hg", ".svn", ".jj")
_CACHES = ("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".tox", ".nox", ".cache",
           ".ipynb_checkpoints", "node_modules", "*.egg-info", ".idea", ".vscode", ".raymill", "mlruns", "wandb")  # fmt: skip
_CACHE_FILES = ("*.pyc", "*.pyo", ".DS_Store", "Thumbs.db")
_SECRET_FOLDERS = (".ssh", ".aws", ".azure", ".gcloud", ".kube", ".gnupg", ".docker")
_SECRET_FILES = (".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", "id_ecdsa*", ".netrc",
                 ".pypirc", ".npmrc", ".pgpass", ".git-credentials", "auth_token", "kubeconfig",
                 "application_default_credentials.json")  # fmt: skip


class LeftOut(NamedTuple):
    """A file or folder that does not travel."""

    path: str
    """Relative to the working directory."""
    reason: str
    size: int = 0
    """Bytes of a file that is too large."""


class WorkingFiles(NamedTuple):
    """What a walk over a working directory collected."""

    root: Path
    files: dict[str, int]
    """Path relative to the working directory, with `/` -> size in bytes."""
    left_out: list[LeftOut]


def list_working_files(
    root: Path, *, storage: Path | None = None, max_file_bytes: int = MAX_FILE_BYTES
) -> WorkingFiles:
    """Return the files below `root` that travel with a job, sorted by path.

    Left out are: version control, environments of Python, caches, the `storage` folder, what may hold secrets, what
    .gitignore and .rayignore name, links to folders, and files over `max_file_bytes`. Raises `ResourceError` for more
    than `MAX_FILES` files.
    """
    walk = _Walk(root, storage, max_file_bytes)
    walk.enter(root, ())
    return WorkingFiles(root, dict(sorted(walk.files.items())), sorted(walk.left_out))


class _Walk:
    def __init__(self, root: Path, storage: Path | None, max_file_bytes: int) -> None:
        self._root, self._max_file_bytes = root, max_file_bytes
        self._storage = storage.resolve() if storage else None
        self.files: dict[str, int] = {}
        self.left_out: list[LeftOut] = []

    def enter(self, folder: Path, ignores: tuple[_Ignore, ...]) -> None:
        """Collect the files of a folder and of those in it. `ignores` are the patterns of the folders above."""
        prefix = "" if folder == self._root else f"{self._relative(folder)}/"
        ignores = (*ignores, *_read_ignores(folder, prefix))
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self._leave_out(folder, f"cannot be read: {error.strerror}")
            return
        for entry in entries:
            path = Path(entry.path)
            if not is_unicode(entry.name):
                self._leave_out(path, "name is not UTF-8")
            elif entry.is_dir(follow_symlinks=False):
                self._enter_folder(path, ignores)
            else:
                self._add_file(path, ignores)

    def _enter_folder(self, path: Path, ignores: tuple[_Ignore, ...]) -> None:
        reason = _reason_of_folder(path)
        if reason is None and self._storage and path.resolve() == self._storage:
            reason = "storage"
        if reason is None:
            reason = _ignored_by(f"{self._relative(path)}/", ignores)
        if reason is None:
            self.enter(path, ignores)
        elif reason != "cache":
            self._leave_out(path, reason)

    def _add_file(self, path: Path, ignores: tuple[_Ignore, ...]) -> None:
        if path.name in IGNORE_FILES or any(fnmatch(path.name, pattern) for pattern in _CACHE_FILES):
            return
        relative, size = self._relative(path), 0
        reason = "may hold secrets" if any(fnmatch(path.name, pattern) for pattern in _SECRET_FILES) else None
        reason = reason or _ignored_by(relative, ignores)
        if reason is None:
            reason, size = _check_file(path, self._max_file_bytes)
        if reason is None:
            self.files[relative] = size
            self._check_count()
        else:
            self._leave_out(path, reason, size)

    def _leave_out(self, path: Path, reason: str, size: int = 0) -> None:
        self.left_out.append(LeftOut(self._relative(path), reason, size))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix().encode("utf-8", "backslashreplace").decode()

    def _check_count(self) -> None:
        if len(self.files) > MAX_FILES:
            raise ResourceError(
                f"the working directory {self._root} has more than {MAX_FILES:,} files",
                "run the command in the folder of your project, or name what does not travel in .rayignore, as in "
                ".gitignore",
            )


class _Ignore(NamedTuple):
    """The patterns of one .gitignore or .rayignore."""

    folder: str
    """Where it stands, relative to the working directory: empty, or with `/` at its end."""
    name: str
    patterns: GitIgnoreSpec


def _read_ignores(folder: Path, prefix: str) -> Iterator[_Ignore]:
    for name in IGNORE_FILES:
        file = folder / name
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            yield _Ignore(prefix, name, GitIgnoreSpec.from_lines(lines))


def _ignored_by(path: str, ignores: Sequence[_Ignore]) -> str | None:
    """Return the name of the file whose pattern excludes a path; None if none does, or a later one includes it."""
    reason = None
    for ignore in ignores:
        included = ignore.patterns.check_file(path.removeprefix(ignore.folder)).include
        if included is not None:
            reason = ignore.name if included else None
    return reason


def _reason_of_folder(path: Path) -> str | None:
    if path.name in _VERSION_CONTROL:
        return "version control"
    if (path / "pyvenv.cfg").is_file() or (path / "conda-meta").is_dir():
        return "environment of Python"
    if any(fnmatch(path.name, pattern) for pattern in _CACHES):
        return "cache"
    return "may hold secrets" if path.name in _SECRET_FOLDERS else None


def _check_file(path: Path, max_bytes: int) -> tuple[str | None, int]:
    """Return why a file does not travel, and its size; None if it does. A link stands for the file that it leads to."""
    try:
        status = path.stat()
    except OSError as error:
        return f"cannot be read: {error.strerror}", 0
    if stat.S_ISDIR(status.st_mode):
        return "link to a folder", 0
    if not stat.S_ISREG(status.st_mode):
        return "no regular file", 0
    if not os.access(path, os.R_OK):
        return "cannot be read: Permission denied", 0
    if status.st_size > max_bytes:
        return "too large", status.st_size
    return None, status.st_size
